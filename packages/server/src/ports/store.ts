/**
 * What the parts of the server ask of each other: small interfaces that state guarantees. Adapters implement them
 * (`store/` on PostgreSQL, `bus/` in memory); the composition root (`server.ts`) wires them.
 *
 * `user_no`, `device_no` and `stream_no` are the store's internal numbers; `user_id` lives in `account` alone.
 */
import type { TokenStore, SigningKeyStore, AccountStore, ExportStore } from './accounts.ts'
import type { SessionStore, LogStore, PairingStore, AssertionStore } from './devices.ts'
import type { IngestStore, ReadStore } from './events.ts'
import type { AuditStore, AdminStore, OperatedStore } from './operators.ts'
import type { NodeStore } from './nodes.ts'
import type { RetentionStore } from './retention.ts'

export type * from './accounts.ts'
export type * from './devices.ts'
export type * from './events.ts'
export type * from './nodes.ts'
export type * from './operators.ts'
export type * from './retention.ts'

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
