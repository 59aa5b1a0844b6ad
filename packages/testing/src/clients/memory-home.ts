/** A home in memory: store, coordination of any number of members in this process, and whatever transport a test gives. */
import { SealpostError } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type {
  Clock,
  Coordination,
  DeviceStore,
  Home,
  HomeMessage,
  Http,
  LeaderLink,
  LeaderSeat,
  Transport,
} from '../../../client/src/ports.ts'
import { defer, type Deferred } from '../../../client/src/signal.ts'

export type MemoryHomeParts = { store: DeviceStore; transport: Transport; http: Http; clock: Clock; coordination?: Coordination }

export function createMemoryHome(parts: MemoryHomeParts): Home {
  return { ...parts, coordination: parts.coordination ?? createMemoryCoordination(), crypto: nodeCrypto, close: () => Promise.resolve() }
}

type Answer = (request: HomeMessage, signal: AbortSignal) => Promise<HomeMessage>
type Follower = { wake(): void; ended: Deferred<void> }

/** Members of one home that live in one process: share the object between their homes. */
export function createMemoryCoordination(): Coordination {
  let led = false
  let followers = new Set<Follower>()
  let answer: Answer | null = null
  let wakeLeader: () => void = () => undefined

  function seat(): LeaderSeat {
    led = true
    return {
      role: 'leader',
      wake: () => {
        for (const follower of followers) queueMicrotask(() => follower.wake())
      },
      onWake: (listener) => {
        wakeLeader = listener
      },
      onRequest: (given) => {
        answer = given
      },
      resign: () => {
        led = false
        answer = null
        wakeLeader = () => undefined
        const left = followers
        followers = new Set()
        for (const follower of left) follower.ended.resolve()
        return Promise.resolve()
      },
    }
  }

  function link(): LeaderLink {
    const follower: Follower = { wake: () => undefined, ended: defer<void>() }
    followers.add(follower)
    return {
      role: 'follower',
      wake: () => queueMicrotask(() => wakeLeader()),
      onWake: (listener) => {
        follower.wake = listener
      },
      async request(message, signal) {
        const gone = follower.ended.promise.then((): never => {
          throw new SealpostError('unreachable', 'the leader is gone')
        })
        const current = answer
        if (current === null) return gone
        return Promise.race([current(message, signal ?? new AbortController().signal), gone])
      },
      ended: follower.ended.promise,
      close: () => {
        followers.delete(follower)
        follower.ended.resolve()
        return Promise.resolve()
      },
    }
  }

  return { lead: () => Promise.resolve(led ? link() : seat()) }
}
