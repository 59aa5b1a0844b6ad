-- the row's place in the chain. the last statement of its transaction: from here to the commit no other row is appended
create or replace function append_audit(
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
