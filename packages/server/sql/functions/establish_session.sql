-- outcome: 0 established, 1 no account, 2 account not active, 3 no device, 4 device revoked.
-- cursor: 0 holds, 1 the row at its position is gone by retention, 2 unknown. entry = event_id, the first 16 bytes of a client part.
create or replace function establish_session(
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
