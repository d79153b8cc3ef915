-- What a response came to that was made in the background, until it is booked: a serialized moa.quota.v1.Settlement.
alter table stored_responses add column settlement bytea;
create index stored_responses_unbooked on stored_responses (id) where settlement is not null;
