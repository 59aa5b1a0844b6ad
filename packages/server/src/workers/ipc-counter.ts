/**
 * Counts that the workers of one machine share (R12): they are kept by the primary, which is asked. Where nodes on other machines live
 * too, and nothing is shared with them, this machine has its part of each limit.
 *
 * Invariant: an ask ends within `ANSWER_MS`, whatever the primary does. Bound: `ASKED_MAX` asks without an answer.
 */
import type { LimitCounter } from '../limits/counter.ts'
import type { Channel, ToPrimary, ToWorker } from './channel.ts'

const ANSWER_MS = 1_000
const ASKED_MAX = 8_192

export type WorkerCounter = {
  /** `nodes`: how many live, wherever they are. It throws while there is no answer. */
  counter(nodes: () => number): LimitCounter
  /** From the primary. */
  counted(id: number, wait: number | null): void
}

type Asked = { resolve(wait: number | null): void; timer: NodeJS.Timeout }

export function createWorkerCounter(channel: Pick<Channel<ToPrimary, never>, 'send'>): WorkerCounter {
  const asked = new Map<number, Asked>()
  let last = 0

  function ask(message: (id: number) => ToPrimary): Promise<number | null> {
    if (asked.size >= ASKED_MAX) return Promise.reject(new Error('too many asks without an answer'))
    const id = ++last
    return new Promise((resolve, reject) => {
      const late = (): void => {
        asked.delete(id)
        reject(new Error('no answer in time'))
      }
      asked.set(id, { resolve, timer: setTimeout(late, ANSWER_MS).unref() })
      channel.send(message(id))
    })
  }

  return {
    counter: (nodes) => ({
      consume: (limit, key, points) => ask((id) => ({ is: 'consume', id, limit, key, points, nodes: nodes() })),
      async reward(limit, key, points) {
        await ask((id) => ({ is: 'reward', id, limit, key, points }))
      },
    }),
    counted(id, wait) {
      const one = asked.get(id)
      if (one === undefined) return
      asked.delete(id)
      clearTimeout(one.timer)
      one.resolve(wait)
    },
  }
}

type Asking = Extract<ToPrimary, { is: 'consume' | 'reward' }>

/** `own`: how many nodes of this machine live, or are still taken to live. */
export async function answerCount(counter: LimitCounter, own: number, asking: Asking): Promise<Extract<ToWorker, { is: 'counted' }>> {
  const { id, limit, key, points } = asking
  if (asking.is === 'reward') await counter.reward(limit, key, points)
  const wait = asking.is === 'consume' ? await counter.consume(partOf(limit, own, asking.nodes), key, points) : null
  return { is: 'counted', id, wait }
}

function partOf<L extends { points: number }>(limit: L, own: number, nodes: number): L {
  return nodes <= own ? limit : { ...limit, points: Math.max(1, Math.floor((limit.points * own) / nodes)) }
}
