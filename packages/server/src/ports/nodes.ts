/** The processes that serve one database (docs/operations/nodes.md). */

import type { Reach } from './events.ts'

/** What a node tells of itself, for operators: since its start (`events_stored`), or of the moment. Times in ms, sizes in bytes. */
export type NodeFigures = {
  version: string
  host: string
  pid: number
  started_at: number
  sessions: number
  /** Users whose hints are received (G13). */
  subscriptions: number
  /** Whether hints of other nodes arrive: `alone`, `up`, `down`. */
  reach: Reach
  inbox_bytes: number
  outbound_bytes: number
  events_stored: number
  rss_bytes: number
  loop_delay_ms: number
  shedding: boolean
  draining: boolean
}

export type NodeRow = { node_no: number; live: boolean; figures: NodeFigures }

export interface NodeStore {
  /** Takes or prolongs the lease. Those that live, this one among them. */
  holdLease(node_id: string, lease_ms: number, figures: NodeFigures): Promise<{ node_no: number; live: number[] }>
  /** Gives it back. */
  endLease(node_id: string): Promise<void>
  /** Also those whose lease has run out a short while ago. */
  listNodes(): Promise<NodeRow[]>
}
