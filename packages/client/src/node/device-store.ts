/**
 * `DeviceStore` on one SQLite file. Each writing method is one transaction that is on disk when it resolves; only the
 * positions of consumers ride on the next one. Several processes may have the file open.
 */
import type { DeviceStore } from '../ports.ts'
import { createIdentityTables } from './identity-tables.ts'
import { createOutboxTables } from './outbox-tables.ts'
import { createReceivedTables } from './received-tables.ts'
import { openStateDatabase } from './state-database.ts'

/** Opens or makes the file. Throws `state_damaged`, `state_newer`, `disk`. */
export function openDeviceStore(path: string): DeviceStore {
  const db = openStateDatabase(path)
  // a wipe that the end of the process cut short left removed pages behind
  if (db.guard(() => db.get('select 1 from revocation')) !== undefined) db.scrub()
  let open = true
  return {
    ...createIdentityTables(db, path),
    ...createOutboxTables(db),
    ...createReceivedTables(db),
    close: async () => {
      if (open) db.guard(() => db.close())
      open = false
    },
  }
}
