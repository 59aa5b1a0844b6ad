/**
 * The tables of a home's `sealpost.sqlite`. `application_id` says whose file it is, `user_version` which version wrote it: a new
 * file begins as version 1 and goes through the same steps as an old one. Bytes are blobs, ids and JSON are text, times are ms.
 */

/** "Seal" in ASCII. */
export const APPLICATION_ID = 0x5365616c

/** `outbox.state`. */
export const ITEM = { pending: 0, acked: 1, rejected: 2, set_aside: 3 } as const

export const STATE_SCHEMA = `
create table identity (
  one integer primary key check (one = 1),
  user_id text not null, device_id text not null, name text not null, device_type text not null,
  server_url text not null, server_key blob not null, sign_seed blob not null, kem_seed blob not null, created_at integer not null
) strict;

create table revocation (one integer primary key check (one = 1), revocation text not null) strict;

create table log (
  log_seq integer primary key, entry_hash blob not null, body blob not null, sig blob not null,
  box blob, epoch_key blob, first_seen integer not null
) strict;

-- One row. log_high is the high-water mark of the device log, -1 before genesis.
create table state (
  one integer primary key check (one = 1),
  log_high integer not null default -1,
  acked_device_seq integer not null default 0,
  cursor_position integer not null default 0, cursor_event_id text, cursor_received_at integer, cursor_history_id text,
  trimmed_row integer not null default 0, trimmed_position integer not null default 0, last_row integer not null default 0,
  received_rows integer not null default 0, received_bytes integer not null default 0,
  decided_items integer not null default 0
) strict;
insert into state (one) values (1);

-- state: 0 pending, 1 acked, 2 rejected. A decided item keeps its outcome alone.
create table outbox (
  item_no integer primary key autoincrement, event_id text not null unique, state integer not null default 0,
  stream_id text not null, type text not null, ttl integer, queued_at integer not null, data blob,
  device_seq integer, epoch integer, event_hash blob, record blob,
  position integer, stream_seq integer, received_at integer, code text
) strict;
create index outbox_pending on outbox (item_no) where state = 0;
create index outbox_rejected on outbox (item_no) where state = 2;

create table head (chain text primary key, device_seq integer not null, event_hash blob not null, epoch integer not null, position integer not null) strict, without rowid;

-- stream_id is null in a notice for every stream; a notice has its JSON in "data" and no event_id.
create table received (
  row_no integer primary key, position integer not null, stream_id text, stream_seq integer, event_id text, type text, device_id text,
  received_at integer, ttl integer, data blob not null
) strict;
create index received_stream on received (stream_id, row_no);

create table consumer (
  consumer text not null, stream_id text not null, done_row integer not null, done_position integer not null, handed_row integer not null,
  primary key (consumer, stream_id)
) strict, without rowid;

create table alarm (alarm_no integer primary key, position integer not null, device_id text not null, reason text not null, at integer not null) strict;

create table note (key text primary key, value text not null) strict, without rowid;
`

/** From version 1 to 2, and so on. A step never changes. */
export const STATE_STEPS: readonly string[] = [
  // state 3: set aside, whole. queued_id: the event_id under which it was queued, where that is another one. aside_*: of all that is set aside.
  `
alter table outbox add column queued_id text;
create unique index outbox_queued on outbox (queued_id) where queued_id is not null;
create index outbox_set_aside on outbox (item_no) where state = 3;
alter table state add column aside_items integer not null default 0;
alter table state add column aside_bytes integer not null default 0;
`,
]
export const STATE_VERSION: number = 1 + STATE_STEPS.length
