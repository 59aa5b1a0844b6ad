/**
 * The lease by which this process counts as a node (docs/operations/nodes.md): prolonged every `BEAT_MS`, over `LEASE_MS` after the last
 * time. Sessions are online while the lease of their node runs, so that the death of a node needs no write.
 *
 * Invariant: a node whose beats fail goes on as it was; others take it for dead, and alive again with its next beat.
 */
import { randomUUID } from 'node:crypto'
import type { Log } from '../../telemetry/log.ts'
import type { NodeFigures, NodeStore } from '../../ports/store.ts'

export type NodeLease = {
  readonly node_no: number
  /** How many nodes live, this one among them. */
  live(): number
  /** Gives it back. */
  close(): Promise<void>
}

export type NodeLeaseDeps = {
  store: Pick<NodeStore, 'holdLease' | 'endLease'>
  figures(): NodeFigures
  /** Other nodes came or went. */
  changed(): void
  logger: Log
}

const BEAT_MS = 2_500
export const LEASE_MS = 10_000

/** Throws what the store throws, the first time. */
export async function openNodeLease({ store, figures, changed, logger }: NodeLeaseDeps): Promise<NodeLease> {
  const node_id = randomUUID()
  let held = await store.holdLease(node_id, LEASE_MS, figures())
  let beating: Promise<void> | null = null

  async function beat(): Promise<void> {
    const before = held.live
    held = await store.holdLease(node_id, LEASE_MS, figures())
    if (before.join() !== held.live.join()) changed()
  }
  const timer = setInterval(() => {
    beating ??= beat()
      .catch((err: unknown) => logger.warn({ err }, 'the lease of this node was not prolonged'))
      .finally(() => (beating = null))
  }, BEAT_MS)
  timer.unref()

  return {
    get node_no() {
      return held.node_no
    },
    live: () => held.live.length,
    async close() {
      clearInterval(timer)
      await beating
      // it runs out by itself
      await store.endLease(node_id).catch((err: unknown) => logger.debug({ err }, 'the lease of this node was not given back'))
    },
  }
}
