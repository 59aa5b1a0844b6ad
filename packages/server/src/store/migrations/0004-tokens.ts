/** Refresh tokens, the version of access tokens, and the keys that sign them (protocol.md §10). */
export const tokens = `
-- raised to end every access token of the device
alter table device_profile add column token_version int4 not null default 0;

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
`
