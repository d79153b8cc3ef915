-- Sessions can be told apart and ended one by one, and log-ins have a second factor.
--
-- Processes of the release before do not ask for it.

alter table sessions
    -- What it is called by: nothing of its token can be found out from it.
    add column id      text generated always as ('ses_' || left(encode(sha256(digest), 'hex'), 24)) stored,
    -- Where it was begun.
    add column address text not null default '';
create unique index sessions_by_id on sessions (id);

alter table accounts
    -- The secret of its second factor, sealed; null: none.
    add column totp         bytea,
    -- One of which no code was confirmed yet.
    add column totp_pending bytea,
    -- Codes of this step of time and earlier ones were taken.
    add column totp_step    bigint not null default 0;
