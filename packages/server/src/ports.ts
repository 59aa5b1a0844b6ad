/**
 * What the parts of the server ask of each other: small interfaces that state guarantees. Adapters implement them
 * (`store/` on PostgreSQL, `bus/` in memory); the composition root (`server.ts`) wires them.
 *
 * `user_no`, `device_no` and `stream_no` are the store's internal numbers; `user_id` lives in `account` alone.
 */
import type { TokenStore, SigningKeyStore, AccountStore, ExportStore } from './ports/accounts.ts'
import type { SessionStore, LogStore, PairingStore, AssertionStore } from './ports/devices.ts'
import type { IngestStore, ReadStore } from './ports/events.ts'
import type { AuditStore, AdminStore, OperatedStore } from './ports/operators.ts'
import type { NodeStore } from './ports/nodes.ts'
import type { RetentionStore } from './ports/retention.ts'

export type * from './ports/accounts.ts'
export type * from './ports/devices.ts'
export type * from './ports/events.ts'
export type * from './ports/nodes.ts'
export type * from './ports/operators.ts'
export type * from './ports/retention.ts'

/** The whole store. */
export interface Store
  extends IngestStore,
    ReadStore,
    SessionStore,
    LogStore,
    PairingStore,
    AssertionStore,
    TokenStore,
    SigningKeyStore,
    AccountStore,
    ExportStore,
    RetentionStore,
    AuditStore,
    AdminStore,
    OperatedStore,
    NodeStore {
  readonly history_id: string
  /** Resolves when one trivial query was answered in time. */
  ping(): Promise<void>
  /** ms, the database's clock, estimated locally between round trips. */
  now(): number
  close(): Promise<void>
}
