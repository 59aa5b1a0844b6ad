/** The processes that serve a relay, and which of them has whose session (docs/operations/nodes.md). */
export const nodes = `
-- a process that serves. it lives while its lease runs; rows of those that ended are removed by the others
create table node (
  node_no int4 generated always as identity primary key,
  lease_until int8 not null,
  node_id uuid not null unique,
  figures text not null                       -- JSON, for operators
) with (fillfactor = 50);

-- of whom a session is: presence is a fact of two rows, and ends with the lease of the node
alter table device add column session_node int4;             -- of the fence; means nothing without one
alter table device_profile add column follower_node int4;    -- the last one over which the device follows by REST

-- whether a session may be is compared with the fence itself
alter table account drop column standing;

drop function establish_session(int8, int4, uuid, int8, bytea, int8, int8);
-- outcome: 0 established, 1 no account, 2 account not active, 3 no device, 4 device revoked.
-- cursor: 0 holds, 1 the row at its position is gone by retention, 2 unknown. entry = event_id, the first 16 bytes of a client part.
create function establish_session(
  for_user int8, for_device int4, new_session uuid, on_node int4, cursor_position int8, cursor_event bytea, cursor_received_at int8, claimed_seq int8,
  out outcome int4, out log_seq int8, out log_head bytea, out head_position int8, out floor int8, out stored_seq int8, out cursor_state int4
) language plpgsql volatile as $f$
declare
  account_active bool; device_active bool; entry_event bytea; entry_received_at int8;
begin
  select a.active, a.log_seq, a.log_head, a.floor into account_active, log_seq, log_head, floor
    from account a where a.user_no = for_user for no key update;
  if not found then outcome := 1; return; end if;
  if not account_active then outcome := 2; return; end if;
  select d.active, d.last_seq into device_active, stored_seq
    from device d where d.user_no = for_user and d.device_no = for_device for no key update;
  if not found then outcome := 3; return; end if;
  if not device_active then outcome := 4; return; end if;

  update device d set session_id = new_session, session_node = on_node, last_seq = greatest(d.last_seq, claimed_seq)
   where d.user_no = for_user and d.device_no = for_device;
  select h.last into head_position from head h where h.user_no = for_user and h.stream_no = 0;
  head_position := coalesce(head_position, 0);

  outcome := 0; cursor_state := 0;
  if cursor_position > 0 then
    select substring(e.record from 1 for 16), e.received_at into entry_event, entry_received_at
      from event e where e.user_no = for_user and e.position = cursor_position;
    if found then
      if entry_event is distinct from cursor_event or entry_received_at is distinct from cursor_received_at then cursor_state := 2; end if;
    elsif cursor_position <= floor then cursor_state := 1;
    else cursor_state := 2;
    end if;
  end if;
end $f$;

-- whether a device follows over a node that lives, or has its session there
create function is_online(session_id uuid, session_node int4, follower_node int4) returns bool language sql stable as $f$
  select exists (select from node n where n.lease_until > clock_ms()
                    and (n.node_no = follower_node or (session_id is not null and n.node_no = session_node)))
$f$;

-- true: the device is offline now, whoever ended its session
drop function end_session(int8, int4, uuid, int8);
create function end_session(for_user int8, for_device int4, old_session uuid, at_position int8) returns bool language plpgsql volatile as $f$
begin
  perform from account a where a.user_no = for_user for no key update;
  update device d set session_id = null where d.user_no = for_user and d.device_no = for_device and d.session_id = old_session;
  if found then
    update device_profile p set last_seen = clock_ms(), seen_position = greatest(p.seen_position, at_position)
     where p.user_no = for_user and p.device_no = for_device;
  end if;
  return not coalesce((select is_online(d.session_id, d.session_node, p.follower_node)
    from device d join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
   where d.user_no = for_user and d.device_no = for_device), true);
end $f$;
`
