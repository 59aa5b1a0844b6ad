-- what devices that were revoked older_ms ago left behind: their boxes, when and how far they were seen, their tokens. the log itself
-- stays. outcome as above; looked_at: devices, up to (last_user, last_device); more: some of them have boxes left
create or replace function clear_revoked(older_ms int8, after_user int8, after_device int4, devices_max int4, rows_max int4,
  out outcome int4, out rows int4, out looked_at int4, out last_user int8, out last_device int4, out more bool) language plpgsql volatile as $f$
declare
  due int8 := clock_ms() - older_ms; u int8[]; d int4[]; hu int8[]; hd int4[];
begin
  if not take_retention_turn() then outcome := 1; return; end if;
  outcome := 0; rows := 0; looked_at := 0; more := false;
  select array_agg(p.user_no order by p.user_no, p.device_no), array_agg(p.device_no order by p.user_no, p.device_no) into u, d
    from (select i.user_no, i.device_no from device_profile i
           where i.revoked_log_seq is not null and i.cleared_at is null and (i.user_no, i.device_no) > (after_user, after_device)
           order by i.user_no, i.device_no limit devices_max) p;
  if u is null then return; end if;
  looked_at := cardinality(u); last_user := u[looked_at]; last_device := d[looked_at];
  with held as materialized (
    select a.user_no from account a where a.user_no = any(u) order by a.user_no for no key update skip locked)
  select array_agg(x.user_no), array_agg(x.device_no) into hu, hd
    from unnest(u, d) x (user_no, device_no)
    join device_profile p on p.user_no = x.user_no and p.device_no = x.device_no
    join log_entry e on e.user_no = p.user_no and e.log_seq = p.revoked_log_seq
   where e.stored_at <= due and x.user_no in (select h.user_no from held h);
  if hu is null then return; end if;
  delete from log_box b using (
    select k.user_no, k.recipient, k.log_seq from unnest(hu, hd) x (user_no, device_no)
      join log_box k on k.user_no = x.user_no and k.recipient = x.device_no limit rows_max) k
   where b.user_no = k.user_no and b.recipient = k.recipient and b.log_seq = k.log_seq;
  get diagnostics rows = row_count;
  more := rows >= rows_max;
  delete from refresh_family f using unnest(hu, hd) x (user_no, device_no) where f.user_no = x.user_no and f.device_no = x.device_no;
  update device_profile p set cleared_at = clock_ms(), last_seen = null, seen_position = 0
    from unnest(hu, hd) x (user_no, device_no)
   where p.user_no = x.user_no and p.device_no = x.device_no
     and not exists (select from log_box b where b.user_no = x.user_no and b.recipient = x.device_no);
end $f$;
