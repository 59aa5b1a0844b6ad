/**
 * The wire over Redis (protocol.md §7): one channel per user, PUBLISH and SUBSCRIBE, in a Cluster SPUBLISH and SSUBSCRIBE.
 *
 * Whether it works is not taken from the state of connections, which may look well while nothing comes through (a server that is
 * frozen, a subscription that was lost): every `BEAT_MS` a message is sent to ourselves, over each of some channels, and says when. The
 * wire is up while they come back, and only after one came that was sent when all wanted channels had been subscribed to: what was long
 * on its way proves nothing. When they do not, it begins anew.
 *
 * Bound: `PENDING_MAX` messages without an answer, above which they are lost; nothing is sent while the wire is down.
 */
import { randomBytes } from 'node:crypto'
import { Cluster, type Redis } from 'ioredis'
import type { Bytes } from '@sealpost/protocol'
import type { Log } from '../telemetry/log.ts'
import type { RedisLink } from './redis-link.ts'
import type { OpenWire, Wire, WireListener } from './wire.ts'

const BEAT_MS = 500
/** Without an own message for so long, what comes of others is not relied on. */
const SILENT_MS = 2_000
/** Between two new beginnings. */
const RENEW_MS = 4_000
const PENDING_MAX = 8_192
/** Channels of one tag are in one slot of a Cluster, and can be subscribed to together. */
const TAGS = 1_024
const TOGETHER_MAX = 500
/** In a Cluster each master should have one. */
const BEATS_CLUSTER = 24

/** `relay`: what relays that share one Redis differ by. */
export function openRedisWire(link: RedisLink, relay: string, logger: Log): OpenWire {
  return (listener) => createRedisWire(link, relay, logger, listener)
}

function createRedisWire(link: RedisLink, relay: string, logger: Log, listener: WireListener): Wire {
  const { commands, subscriber } = link
  // there channels belong to shards
  const cluster = commands instanceof Cluster ? commands : null
  const prefix = `sealpost:${relay}:`
  const channelOf = (topic: number): string => `${prefix}{${topic % TAGS}}:${topic}`
  const own = randomBytes(8).toString('hex')
  /** When the newest that came back was sent. */
  const beats = new Map(Array.from({ length: cluster === null ? 1 : BEATS_CLUSTER }, (_, i) => [`${prefix}{${i}}:beat:${own}`, 0]))
  const wanted = new Set<number>()
  let up = false
  let closed = false
  let pending = 0
  const leaving: { channel: string; message: () => Bytes }[] = []
  /** When all that was wanted had been subscribed to; null: that is still to be done. */
  let synced: number | null = null
  let renewed = performance.now()
  /** Not all that is wanted was subscribed to, though the connection stands. */
  let missed = false
  /** Of the newest one: what an older one still finds out counts no more. */
  let syncing = 0

  const join = (channels: string[]): Promise<unknown> =>
    cluster === null ? subscriber.subscribe(...channels) : cluster.ssubscribe(...channels)
  const part = (channels: string[]): Promise<unknown> =>
    cluster === null ? subscriber.unsubscribe(...channels) : cluster.sunsubscribe(...channels)
  /** What fails shows by the next beat. */
  const ignore = (): void => {}

  function setUp(now: boolean, why: string): void {
    if (now === up || closed) return
    up = now
    logger[now ? 'info' : 'warn']({ why }, now ? 'hints of other nodes arrive' : 'hints of other nodes do not arrive')
    listener.changed(now)
  }

  async function sync(isNewest: () => boolean): Promise<void> {
    synced = null
    const groups = new Map<number, number[]>()
    for (const topic of wanted) {
      // outside a Cluster all channels are in one place
      const tag = cluster === null ? 0 : topic % TAGS
      const group = groups.get(tag) ?? []
      groups.set(tag, group)
      group.push(topic)
    }
    for (const group of groups.values())
      for (let from = 0; from < group.length; from += TOGETHER_MAX) {
        const topics = group.slice(from, from + TOGETHER_MAX)
        await join(topics.map(channelOf))
        // given back while others were waited for
        const left = topics.filter((topic) => !wanted.has(topic))
        if (left.length > 0) await part(left.map(channelOf))
        if (!isNewest()) return
      }
    for (const channel of beats.keys()) await join([channel])
    if (!isNewest()) return
    synced = performance.now()
    beat()
  }

  function startSync(): void {
    if (closed) return
    missed = false
    const mine = ++syncing
    const isNewest = (): boolean => mine === syncing && !closed
    sync(isNewest).catch((err: unknown) => {
      if (isNewest()) miss(err)
    })
  }

  /** Hints of some users do not come. */
  function miss(err: unknown): void {
    if (closed) return
    logger.debug({ err }, 'channels were not subscribed to')
    missed = true
    setUp(false, 'missed')
  }

  function lost(): void {
    setUp(false, 'closed')
    if (synced !== null) synced = performance.now()
  }

  function beat(): void {
    const now = performance.now()
    const heard = Math.min(...beats.values())
    if (up && now - heard > SILENT_MS) {
      setUp(false, 'silent')
      synced = null
    }
    if (missed && subscriber.status === 'ready') startSync()
    if (!up && now - Math.max(renewed, synced ?? 0) > RENEW_MS) {
      renewed = now
      link.reconnect()
    }
    for (const channel of beats.keys()) send(channel, () => Buffer.from(String(now)))
  }

  function send(channel: string, message: () => Bytes): void {
    pending += 1
    // they go to several masters, each when its connection is ready
    if (cluster !== null) return attempt(() => cluster.spublish(channel, Buffer.from(message())))
    leaving.push({ channel, message })
    if (leaving.length === 1) queueMicrotask(leave)
  }

  /** What is sent in one turn, as the hints of one commit are, leaves in one write. Each message is copied into it when it is published. */
  function leave(): void {
    // none before the first connection
    const stream = (commands as Redis).stream as Redis['stream'] | undefined
    stream?.cork()
    for (const { channel, message } of leaving.splice(0)) attempt(() => commands.publish(channel, message() as Buffer))
    stream?.uncork()
  }

  /** What fails shows by the next beat. A Cluster of which no master has the slot throws. */
  function attempt(publish: () => Promise<unknown>): void {
    const settled = (): void => void (pending -= 1)
    try {
      publish().then(settled, settled)
    } catch {
      settled()
    }
  }

  function received(channel: string, message: Buffer): void {
    if (beats.has(channel)) {
      const sent = Number(message.toString())
      if (!(sent <= performance.now())) return
      beats.set(channel, Math.max(beats.get(channel) ?? 0, sent))
      if (!up && synced !== null && Math.min(...beats.values()) >= synced) setUp(true, 'heard')
      return
    }
    const topic = Number(channel.slice(channel.lastIndexOf(':') + 1))
    if (Number.isSafeInteger(topic)) listener.received(topic, message)
  }

  subscriber.on(cluster === null ? 'messageBuffer' : 'smessageBuffer', (channel: Buffer, message: Buffer) =>
    received(channel.toString(), message),
  )
  subscriber.on('ready', startSync)
  // of a Cluster a part was joined anew: what it had to say meanwhile is lost
  if (cluster !== null) subscriber.on('subscribersReady', startSync)
  subscriber.on('close', lost)
  if (cluster === null) commands.on('close', lost)
  if (subscriber.status === 'ready') startSync()
  const clock = setInterval(beat, BEAT_MS)
  clock.unref()

  return {
    publish(topic, message) {
      if (up && pending < PENDING_MAX) send(channelOf(topic), message)
    },
    subscribe(topic) {
      wanted.add(topic)
      if (subscriber.status === 'ready') join([channelOf(topic)]).catch(miss)
    },
    unsubscribe(topic) {
      wanted.delete(topic)
      if (subscriber.status === 'ready') part([channelOf(topic)]).catch(ignore)
    },
    close() {
      closed = true
      clearInterval(clock)
      subscriber.removeAllListeners('messageBuffer')
      subscriber.removeAllListeners('smessageBuffer')
      const all = [...beats.keys(), ...[...wanted].map(channelOf)]
      wanted.clear()
      // given back one by one where they are of different slots
      return Promise.allSettled(subscriber.status === 'ready' ? all.map((channel) => part([channel])) : []).then(ignore)
    },
  }
}
