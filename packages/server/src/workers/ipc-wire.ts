/**
 * The wire between the workers of one machine (protocol.md §7), over the channels to their primary: it keeps who wants which topic, and
 * passes a message on to those who do, but for the one it is from. What comes together in one turn of a process is one message.
 *
 * Invariant: nothing blocks, and a topic that is wanted is told in the end. Bound: `WAITING_BYTES_MAX` per channel and direction, above
 * which hints are lost.
 */
import type { OpenWire } from '../bus/wire.ts'
import type { Channel, Sent, ToPrimary, ToWorker } from './channel.ts'

export const WAITING_BYTES_MAX = 8 * 1_048_576
/** Of a hint, beside its bytes. */
const ENTRY_BYTES = 64
/** Topics are told again so soon when there is no room for them now. */
const AGAIN_MS = 50

export type WorkerWire = {
  open: OpenWire
  /** From the primary. */
  received(hints: readonly Sent[]): void
}

export function createWorkerWire(channel: Pick<Channel<ToPrimary, never>, 'send' | 'waiting'>): WorkerWire {
  let deliver: (hints: readonly Sent[]) => void = () => {}

  return {
    received: (hints) => deliver(hints),
    open(listener) {
      const topics = new Map<number, 'joined' | 'parted'>()
      const hints = createBatch<ToPrimary>(channel, (batch) => ({ is: 'hints', hints: batch }))
      let telling = false
      let closed = false

      function tellLater(): void {
        if (telling || closed) return
        telling = true
        setImmediate(tell)
      }
      function tell(): void {
        if (channel.waiting() > WAITING_BYTES_MAX) return void setTimeout(tell, AGAIN_MS).unref()
        telling = false
        const of = (wanted: 'joined' | 'parted'): number[] => [...topics].flatMap(([topic, is]) => (is === wanted ? [topic] : []))
        const told = { joined: of('joined'), parted: of('parted') }
        topics.clear()
        if (!closed) channel.send({ is: 'topics', ...told }, 8 * (told.joined.length + told.parted.length))
      }

      deliver = (sent) => {
        for (const [topic, message] of sent) listener.received(topic, message)
      }
      // as long as the channel is there; with its end the worker ends
      listener.changed(true)
      return {
        publish(topic, message) {
          if (!closed) hints.add([topic, message])
        },
        subscribe(topic) {
          topics.set(topic, 'joined')
          tellLater()
        },
        unsubscribe(topic) {
          topics.set(topic, 'parted')
          tellLater()
        },
        close() {
          closed = true
          deliver = () => {}
          return Promise.resolve()
        },
      }
    },
  }
}

export type WireHub = { add(channel: Pick<Channel<ToWorker, never>, 'send' | 'waiting'>): WireMember }

/** One worker of the hub. */
export type WireMember = {
  topics(change: { joined: readonly number[]; parted: readonly number[] }): void
  published(hints: readonly Sent[]): void
  /** It is gone. */
  leave(): void
}

export function createWireHub(): WireHub {
  type Member = { wanted: Set<number>; add(sent: Sent): void }
  const topics = new Map<number, Set<Member>>()

  function part(topic: number, member: Member): void {
    const members = topics.get(topic)
    members?.delete(member)
    if (members?.size === 0) topics.delete(topic)
    member.wanted.delete(topic)
  }

  return {
    add(channel) {
      const batch = createBatch<ToWorker>(channel, (hints) => ({ is: 'hints', hints }))
      const self: Member = { wanted: new Set(), add: batch.add }
      return {
        topics({ joined, parted }) {
          for (const topic of joined) {
            const members = topics.get(topic) ?? new Set()
            topics.set(topic, members.add(self))
            self.wanted.add(topic)
          }
          for (const topic of parted) part(topic, self)
        },
        published(hints) {
          for (const sent of hints) for (const member of topics.get(sent[0]) ?? []) if (member !== self) member.add(sent)
        },
        leave() {
          for (const topic of self.wanted) part(topic, self)
        },
      }
    },
  }
}

/** Hints of one turn as one message. */
function createBatch<M>(channel: Pick<Channel<M, never>, 'send' | 'waiting'>, wrap: (hints: Sent[]) => M): { add(sent: Sent): void } {
  let batch: Sent[] = []
  let bytes = 0

  function send(): void {
    const message = wrap(batch)
    const size = bytes
    batch = []
    bytes = 0
    channel.send(message, size)
  }

  return {
    add(sent) {
      if (channel.waiting() + bytes > WAITING_BYTES_MAX) return
      batch.push(sent)
      bytes += sent[1].length + ENTRY_BYTES
      if (batch.length === 1) setImmediate(send)
    },
  }
}
