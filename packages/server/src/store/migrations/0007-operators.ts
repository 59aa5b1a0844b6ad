/** Who operates the relay, what they set, and the audit log (docs/operations/admin.md, docs/operations/audit.md). */
export const operators = `
-- what an operator decided about an account: none of it is in the device log, nobody but the account's devices can write there
alter table account
  add column suspended_at int8,               -- set: active is false by it
  add column standing int8 not null default 0; -- raised by every change of what sessions may do that is not in the device log
alter table device_profile add column suspended_at int8;     -- set: the device is not active by it, unless it was revoked

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

-- one part of tuple() (protocol.md §1)
create function lp(part bytea) returns bytea language sql immutable as $f$
  select int4send(coalesce(octet_length(part), 0)) || coalesce(part, '')
$f$;

-- the row's place in the chain. the last statement of its transaction: from here to the commit no other row is appended
create function append_audit(
  new_actor text, new_action text, new_outcome text, new_target text, new_request_id text, new_address text, new_detail text, new_user_hash bytea
) returns int8 language plpgsql volatile as $f$
declare
  n int8; prev bytea; made bytea; now_ms int8;
begin
  select h.seq + 1, h.hash into n, prev from audit_head h for no key update;
  now_ms := clock_ms();
  made := sha256(lp(convert_to('sealpost/1 audit', 'UTF8')) || lp(prev) || lp(int8send(n)) || lp(int8send(now_ms))
    || lp(convert_to(new_actor, 'UTF8')) || lp(convert_to(new_action, 'UTF8')) || lp(convert_to(new_outcome, 'UTF8'))
    || lp(convert_to(new_target, 'UTF8')) || lp(convert_to(new_request_id, 'UTF8')) || lp(convert_to(new_address, 'UTF8'))
    || lp(convert_to(new_detail, 'UTF8')) || lp(new_user_hash));
  insert into audit (seq, at, actor, action, outcome, target, request_id, address, detail, user_hash, hash)
  values (n, now_ms, new_actor, new_action, new_outcome, new_target, new_request_id, new_address, new_detail, new_user_hash, made);
  update audit_head set seq = n, hash = made;
  return n;
end $f$;

-- against mistakes; who may drop a trigger is found by the chain
create function refuse_audit_change() returns trigger language plpgsql as $f$
begin
  if current_setting('sealpost.audit_retention', true) = 'on' and tg_op = 'DELETE' then return null; end if;
  raise exception 'the audit log is append-only' using errcode = '55000';
end $f$;
create trigger audit_append_only before update or delete or truncate on audit for each statement execute function refuse_audit_change();

-- the oldest rows up to the first checkpoint behind them, if that is older than older_ms. the checkpoint stays, as the beginning
-- of what is left. outcome as in remove_prefix; more: the next ones may be due as well
create function remove_old_audit(older_ms int8, out outcome int4, out rows int4, out more bool) language plpgsql volatile as $f$
declare
  due int8 := clock_ms() - older_ms; low int8; upto int8;
begin
  if not take_retention_turn() then outcome := 1; return; end if;
  outcome := 0; rows := 0; more := false;
  select min(a.seq) into low from audit a;
  select min(c.seq) into upto from audit_checkpoint c where c.seq >= low and c.at <= due;
  if upto is null then return; end if;
  perform set_config('sealpost.audit_retention', 'on', true);
  delete from audit a where a.seq <= upto;
  get diagnostics rows = row_count;
  perform set_config('sealpost.audit_retention', '', true);
  delete from audit_checkpoint c where c.seq < upto;
  more := true;
end $f$;
`
