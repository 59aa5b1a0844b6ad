/** The tables. Rules for whoever writes to them are in the comments of the SQL. */
export const tables = `
-- who changes account, device, head, stream or the device log, or deletes events, locks the account row first ("for no key
-- update"; deletion "for update"). nobody holds two account rows unless sorted by user_no. isolation: read committed.
-- 8-byte columns first: no alignment holes.

create table account (
  user_no int8 generated always as identity primary key,
  log_seq int8 not null,                      -- of the newest entry of the device log: the current epoch
  floor int8 not null default 0,              -- positions up to it were removed by retention, as a whole prefix
  created_at int8 not null,                   -- ms, like every time here; database clock
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
  device_no int4 not null,
  device_type text not null check (device_type in ('mobile', 'desktop', 'web')),
  name text not null check (name <> ''),
  name_key text,                              -- what must be unique: NFC, case folded; null once revoked
  sign_pub bytea not null check (octet_length(sign_pub) = 32),
  primary key (user_no, device_no),
  foreign key (user_no, device_no) references device on delete cascade,
  constraint device_name_taken unique (user_no, name_key)
) with (fillfactor = 80);

create table head (
  user_no int8 not null,
  stream_no int4 not null,                    -- 0 is the user's position
  last int8 not null,
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

create function clock_ms() returns int8 language sql volatile as $f$
  select floor(extract(epoch from clock_timestamp()) * 1000)::int8
$f$;
`
