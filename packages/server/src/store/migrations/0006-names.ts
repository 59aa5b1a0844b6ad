/** The rules of device names that the verifier of the log has (protocol.md §2, G08), in the table as well. */
export const names = `
alter table device_profile
  add constraint device_name_length check (char_length(name) <= 512),
  add constraint device_name_loggable check (name !~ '[\\u0001-\\u001f\\u007f-\\u009f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]');
`
