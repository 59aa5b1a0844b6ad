-- Guards against mistakes. If somebody drops the trigger, the hash chain shows what was changed.
create or replace function refuse_audit_change() returns trigger language plpgsql as $f$
begin
  if current_setting('sealpost.audit_retention', true) = 'on' and tg_op = 'DELETE' then return null; end if;
  raise exception 'the audit log is append-only' using errcode = '55000';
end $f$;

create or replace trigger audit_append_only before update or delete or truncate on audit
  for each statement execute function refuse_audit_change();
