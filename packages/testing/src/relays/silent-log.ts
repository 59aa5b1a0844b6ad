import type { Audit } from '../../../server/src/audit/recorder.ts'
import type { Log } from '../../../server/src/telemetry/log.ts'

/** A log that nobody reads. */
export const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** An audit log that keeps nothing. */
export const unaudited: Audit = { note: () => {}, write: async () => {}, flush: async () => {}, close: async () => {} }
