create or replace function end_session(for_user int8, for_device int4, old_session uuid, at_position int8) returns bool language plpgsql volatile as $f$
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
