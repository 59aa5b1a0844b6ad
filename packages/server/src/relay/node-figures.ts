/** What a node tells of itself to those who run the relay (docs/operations/nodes.md). */
import { hostname } from 'node:os'
import type { Bus, NodeFigures } from '../ports/store.ts'
import { VERSION } from '../telemetry/version.ts'
import type { Relay } from './relay.ts'

export type FiguresOf = {
  /** Null: it is about to start. */
  relay(): Pick<Relay, 'sessions' | 'inbox' | 'outbound' | 'load'> | null
  bus: Pick<Bus, 'subscriptions' | 'reach'>
  draining(): boolean
}

export function createNodeFigures({ bus, ...deps }: FiguresOf): () => NodeFigures {
  const constant = { version: VERSION, host: hostname(), pid: process.pid, started_at: Date.now() }
  return () => {
    const relay = deps.relay()
    const { bytes = 0, events = 0 } = relay?.inbox.stats() ?? {}
    const { loop_ms = 0, shedding = false } = relay?.load() ?? {}
    return {
      ...constant,
      sessions: relay?.sessions.size() ?? 0,
      subscriptions: bus.subscriptions(),
      reach: bus.reach(),
      inbox_bytes: bytes,
      outbound_bytes: relay?.outbound.bytes ?? 0,
      events_stored: events,
      rss_bytes: process.memoryUsage.rss(),
      loop_delay_ms: Math.round(loop_ms * 10) / 10,
      shedding,
      draining: deps.draining(),
    }
  }
}
