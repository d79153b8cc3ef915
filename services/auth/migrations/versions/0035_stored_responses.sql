-- Responses of the Responses API, and conversations, of accounts that have them stored (docs/decisions/0034-stored-responses.md).
--
-- What a caller said or was told is in the columns of type bytea, encrypted; ids, states and times are not.

-- What the account wants; null: what the operator's setting says.
alter table accounts add column stores_responses boolean;

create table stored_responses (
    id              text primary key,
    account_id      text not null,
    previous_id     text,                       -- the response that it went on from
    conversation_id text,                       -- the conversation that it is a part of
    conversation_until bigint,                  -- the place of the last of the conversation's items before its own
    state           smallint not null,          -- moa.response.v1.ResponseState
    streamed        boolean not null default false,
    input           bytea not null,
    body            bytea not null,
    size_bytes      bigint not null,
    created_at      timestamptz not null default now(),
    expires_at      timestamptz not null,
    -- While it is made in the background: what is asked, by which key, and who works at it until when.
    request         bytea,
    key_id          text,
    attempts        int not null default 0,
    fence           bigint not null default 0,
    leased_until    timestamptz,
    cancel_asked_at timestamptz,
    next_sequence   bigint not null default 0   -- the number of the event that would be next
);
alter table stored_responses alter column input set storage external;
alter table stored_responses alter column body set storage external;
alter table stored_responses alter column request set storage external;
create index stored_responses_expiry on stored_responses (expires_at);
create index stored_responses_of_account on stored_responses (account_id);
-- 1 and 2: queued, in progress.
create index stored_responses_due on stored_responses (leased_until) where state in (1, 2);

create table stored_events (
    response_id    text not null references stored_responses (id) on delete cascade,
    first_sequence bigint not null,
    last_sequence  bigint not null,
    events         bytea not null,
    primary key (response_id, first_sequence)
);
alter table stored_events alter column events set storage external;

create table stored_conversations (
    id         text primary key,
    account_id text not null,
    metadata   bytea not null,
    size_bytes bigint not null,
    next_place bigint not null default 1,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index stored_conversations_expiry on stored_conversations (expires_at);
create index stored_conversations_of_account on stored_conversations (account_id);

create table stored_items (
    conversation_id text not null references stored_conversations (id) on delete cascade,
    place           bigint not null,
    id              text not null,
    item            bytea not null,
    size_bytes      bigint not null,
    primary key (conversation_id, place),
    unique (conversation_id, id)
);
alter table stored_items alter column item set storage external;

-- How much an account has stored, so that nobody sums it up at each response.
create table stored_room (
    account_id text primary key,
    entries    bigint not null,   -- responses and conversations
    bytes      bigint not null
);
