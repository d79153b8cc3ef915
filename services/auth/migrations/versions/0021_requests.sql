-- Requests are a dimension: each that was answered is one, from now on.
call add_dimension('requests', has_limits => true);
