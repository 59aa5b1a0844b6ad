-- one batch at a time in the whole database. what a crash undoes is done again, so that nobody waits for a disk behind these locks
create or replace function take_retention_turn() returns bool language plpgsql volatile as $f$
begin
  perform set_config('synchronous_commit', 'off', true);
  return pg_try_advisory_xact_lock(hashtext('sealpost retention'));
end $f$;
