-- What reports group a request by beside its key and model. Null: not known, or nothing.

alter table ledger
    -- The dialect that it came in ("openai").
    add column dialect text,
    -- What it is called: the tags of `moa-tags`, and "user:" with its `user`.
    add column tags    text[];
