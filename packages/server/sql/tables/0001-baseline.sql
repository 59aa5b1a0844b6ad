-- The tables of a relay. A released file never changes: a later change of a table is a file of its own beside this one.
-- Functions are in ../functions, one file each; they may change (docs/decisions/0027-sql-files.md).
--
-- A transaction that changes account, device, head, stream or the device log, or that deletes events, locks the account row first
-- ("for no key update"; a deletion "for update"). It holds two account rows only if it took them in the order of user_no.
-- The isolation level is read committed. Columns of 8 bytes come first, so that alignment leaves no holes.

create table account (
  user_no int8 generated always as identity primary key,
  log_seq int8 not null,                      -- of the newest entry of the device log: the current epoch
  floor int8 not null default 0,              -- positions up to it were removed by retention, as a whole prefix
  created_at int8 not null,                   -- ms, like every time here; database clock
  suspended_at int8,                          -- set: an operator suspended the account, and active is false
  quota_bytes int8 check (quota_bytes >= 0),  -- the three quotas: for this account; null = as configured
  quota_streams int4 check (quota_streams >= 0),
  quota_devices int4 check (quota_devices > 0),
  active bool not null default true,
  user_id bytea not null unique check (octet_length(user_id) = 32),
  log_head bytea not null check (octet_length(log_head) = 32)
) with (fillfactor = 80);

-- deleted accounts, so that their genesis cannot be replayed
create table deleted_account (
  user_id_hash bytea primary key check (octet_length(user_id_hash) = 32),
  deleted_at int8 not null
);

-- what the ingest statement touches, and nothing else; last_seq is in no index, so that its updates stay hot
create table device (
  user_no int8 not null references account on delete cascade,
  last_seq int8 not null default 0,           -- highest device_seq stored, or known by the device to be acked
  swept_seq int8 not null default 0,          -- highest device_seq that retention removed
  session_id uuid,                            -- the fence; null = no session
  device_no int4 not null check (device_no > 0),
  session_node int4,                          -- the node of the fence; it means nothing without a fence
  active bool not null default true,
  device_id uuid not null,
  primary key (user_no, device_no),
  unique (user_no, device_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

create table device_profile (
  user_no int8 not null,
  added_log_seq int8 not null,
  revoked_log_seq int8,
  last_seen int8,
  seen_position int8 not null default 0,      -- what the device said it has taken over; status only
  suspended_at int8,                          -- set: an operator suspended the device; it is not active unless it was revoked
  cleared_at int8,                            -- set when retention has removed what a revoked device left
  device_no int4 not null,
  token_version int4 not null default 0,      -- raised to end every access token of the device
  follower_node int4,                         -- the last node over which the device follows by REST
  device_type text not null check (device_type in ('mobile', 'desktop', 'web')),
  name text not null check (name <> ''),
  name_key text,                              -- what must be unique: NFC, case folded; null once revoked
  sign_pub bytea not null check (octet_length(sign_pub) = 32),
  primary key (user_no, device_no),
  foreign key (user_no, device_no) references device on delete cascade,
  constraint device_name_taken unique (user_no, name_key),
  -- the verifier of the device log has the same rules (protocol.md §2, G08)
  constraint device_name_length check (char_length(name) <= 512),
  constraint device_name_loggable check (name !~ '[\u0001-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]')
) with (fillfactor = 80);
create index device_profile_revoked on device_profile (user_no, device_no) where revoked_log_seq is not null and cleared_at is null;

create table head (
  user_no int8 not null,
  last int8 not null,
  bytes int8 not null default 0,              -- sum of octet_length(record) of the user (stream 0) or the stream; ingest and retention keep it
  swept int8 not null default 0,              -- retention has looked at this stream up to here: no whole event is left below
  stream_no int4 not null,                    -- 0 is the user's position
  primary key (user_no, stream_no)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

create table stream (
  user_no int8 not null references account on delete cascade,
  stream_no int4 not null check (stream_no > 0),
  stream_id text not null check (stream_id ~ '^[A-Za-z0-9._:-]{1,64}$'),
  primary key (user_no, stream_no),
  unique (user_no, stream_id)
);

create table event (
  user_no int8 not null,
  position int8 not null,
  stream_seq int8 not null,
  device_seq int8 not null,
  received_at int8 not null,                  -- one value per batch
  stream_no int4 not null,
  device_no int4 not null,
  expires_at int8,                            -- null = no ttl
  flags int2 not null,                        -- as in the record, without the bit of the server part
  record bytea not null,                      -- client part of the record, relayed verbatim
  primary key (user_no, position),
  unique (user_no, device_no, device_seq)     -- an assertion: the check under the lock keeps duplicates away from it
);
create index event_expires_at on event (expires_at) where expires_at is not null;   -- a tombstone has none
alter table event alter record set storage external;   -- ciphertext does not compress

create table log_entry (
  user_no int8 not null references account on delete cascade,
  log_seq int8 not null,
  stored_at int8 not null,
  body bytea not null check (octet_length(body) <= 65536),   -- the exact bytes that were signed
  sig bytea not null check (octet_length(sig) = 64),
  entry_hash bytea not null check (octet_length(entry_hash) = 32),
  primary key (user_no, log_seq)
);

create table log_box (
  user_no int8 not null,
  log_seq int8 not null,
  recipient int4 not null,                    -- device_no; 0 is the root
  box bytea not null check (octet_length(box) = 1168),
  primary key (user_no, recipient, log_seq),
  foreign key (user_no, log_seq) references log_entry on delete cascade
);
alter table log_box alter box set storage external;

create table pairing (
  mailbox_id text primary key check (octet_length(mailbox_id) <= 64),
  user_no int8 not null references account on delete cascade,
  expires_at int8 not null,
  device_no int4 not null
);
create index pairing_expires_at on pairing (expires_at);
create index pairing_user_no on pairing (user_no);

create table pairing_slot (
  mailbox_id text not null references pairing on delete cascade,
  slot text not null check (slot in ('offer', 'join', 'reveal', 'done')),
  box bytea not null check (octet_length(box) <= 4096),
  primary key (mailbox_id, slot)
);

create table assertion (
  jti_hash bytea primary key check (octet_length(jti_hash) = 32),   -- over user and jti: no user can burn another's
  expires_at int8 not null
);
create index assertion_expires_at on assertion (expires_at);

-- one row: what makes this store itself, and whose it is
create table server_meta (
  one bool primary key default true check (one),
  store_id uuid not null default gen_random_uuid(),
  server_key_hash bytea check (octet_length(server_key_hash) = 32)
);
insert into server_meta default values;

-- one family of refresh tokens per device; the tokens themselves are nowhere
create table refresh_family (
  user_no int8 not null,
  created_at int8 not null,
  expires_at int8 not null,
  rotated_at int8,                            -- when the previous generation was used up
  device_no int4 not null,
  generation int4 not null default 0,
  family_id uuid not null,
  token_hash bytea not null check (octet_length(token_hash) = 32),         -- SHA-256 of the token of this generation
  previous_hash bytea check (octet_length(previous_hash) = 32),
  primary key (user_no, device_no),
  foreign key (user_no, device_no) references device on delete cascade
) with (fillfactor = 80);
create index refresh_family_expires_at on refresh_family (expires_at);

-- which keys are in use; the private ones are derived from the secrets of the relay
create table signing_key (
  purpose text not null,
  generation int4 not null check (generation > 0),
  created_at int8 not null,
  active_at int8,                             -- null = next: published, signs nothing yet
  retired_at int8,                            -- verifies until the last token has expired
  public_key bytea not null check (octet_length(public_key) = 32),
  primary key (purpose, generation)
);

create table admin (
  admin_id text primary key check (admin_id ~ '^[A-Za-z0-9_-]{22}$'),   -- of its key
  created_at int8 not null,
  removed_at int8,
  role text not null check (role in ('viewer', 'operator', 'owner')),
  name text not null check (char_length(name) between 1 and 64),
  public_key bytea not null unique check (octet_length(public_key) = 32)
);
create unique index admin_name_taken on admin (lower(name)) where removed_at is null;

-- what was set while the relay ran, in place of the configuration. the values are JSON
create table setting (
  name text primary key check (char_length(name) <= 64),
  changed_at int8 not null,
  value text not null
);

create table invite (
  invite_id uuid primary key,
  created_at int8 not null,
  expires_at int8 not null,
  revoked_at int8,
  uses_max int4 not null check (uses_max > 0),
  uses int4 not null default 0 check (uses <= uses_max),
  note text check (char_length(note) <= 200),
  code_hash bytea not null unique check (octet_length(code_hash) = 32)   -- SHA-256 of the code, which is nowhere
);

-- rows are appended by append_audit and by nothing else. accounts and devices stand here as hashes of their ids alone
create table audit (
  seq int8 primary key check (seq > 0),       -- 1, 2, 3 ..., without a gap
  at int8 not null,
  actor text not null check (actor <> ''),
  action text not null check (action ~ '^[a-z_]{1,64}$'),
  outcome text not null check (outcome in ('begun', 'done', 'refused', 'failed')),
  target text check (target <> '' and char_length(target) <= 200),
  request_id text check (request_id <> '' and char_length(request_id) <= 128),
  address text check (address <> '' and char_length(address) <= 64),
  detail text check (detail <> '' and octet_length(detail) <= 4096),     -- JSON
  user_hash bytea check (octet_length(user_hash) = 32),                  -- SHA-256 of the user_id
  hash bytea not null check (octet_length(hash) = 32)
);
create index audit_user on audit (user_hash, seq) where user_hash is not null;
create index audit_action on audit (action, seq);

create table audit_head (
  one bool primary key default true check (one),
  seq int8 not null default 0,
  hash bytea not null default decode(repeat('00', 32), 'hex')
) with (fillfactor = 50);
insert into audit_head default values;

-- signed by the server key: what the log was at that place. rows up to one may be removed by their age
create table audit_checkpoint (
  seq int8 primary key,
  at int8 not null,
  hash bytea not null check (octet_length(hash) = 32),
  sig bytea not null check (octet_length(sig) = 64)
);

-- a process that serves. it lives while its lease runs; rows of those that ended are removed by the others
create table node (
  node_no int4 generated always as identity primary key,
  lease_until int8 not null,
  node_id uuid not null unique,
  figures text not null                       -- JSON, for operators
) with (fillfactor = 50);
