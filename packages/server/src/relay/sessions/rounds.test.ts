import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Input } from '../../core/state.ts'
import type { SessionPlace, SessionStanding } from '../../ports/store.ts'
import { createRounds } from './rounds.ts'
import type { SessionRun } from './session-run.ts'

const BASE = { user_no: 1, device_no: 1, history_id: 'h', position: 5, log_seq: 2, by: { session_id: 's' } }
type Place = NonNullable<SessionRun['place']>

/** A session, as far as rounds know it; `told` is what came in. */
function session(place: Partial<Place> | null = {}) {
  const told: Input[] = []
  const run = { place: place === null ? null : { ...BASE, ...place }, input: (input: Input) => void told.push(input) }
  return { told, run: run as SessionRun }
}

const open: { close(): void }[] = []
afterEach(() => {
  for (const one of open.splice(0)) one.close()
  vi.useRealTimers()
})

type Ask = { kind: 'heads' | 'online'; places: readonly SessionPlace[]; user_nos: readonly number[]; answer: PromiseWithResolvers<unknown> }

/** The clock stands still until it is moved on; each question waits for its answer. */
function setUp(runs: SessionRun[], random: () => number = () => 0.5) {
  vi.useFakeTimers()
  const asked: Ask[] = []
  const failures: unknown[] = []
  const going = new Set<Promise<void>>()
  const ask = (kind: Ask['kind'], given: { places?: readonly SessionPlace[]; user_nos?: readonly number[] }): Promise<never> => {
    const answer = Promise.withResolvers<unknown>()
    asked.push({ kind, places: [], user_nos: [], ...given, answer })
    return answer.promise as Promise<never>
  }
  const rounds = createRounds({
    store: {
      history_id: 'h',
      compareSessions: (places) => ask('heads', { places }),
      readOnline: (user_nos) => ask('online', { user_nos }),
    },
    runs,
    limits: { headRoundMs: 100, presenceRoundMs: 1_000_000 },
    work: {
      track(work) {
        going.add(work)
        void work.finally(() => going.delete(work))
      },
    },
    failed: (error) => failures.push(error),
    random,
  })
  open.push(rounds)
  const heads = () => asked.filter(({ kind }) => kind === 'heads')
  return {
    rounds,
    asked,
    heads,
    failures,
    pass: (ms: number) => vi.advanceTimersByTimeAsync(ms),
    /** Answers the last question of heads. */
    async answer(...standings: SessionStanding[]) {
      heads().at(-1)!.answer.resolve(standings)
      await vi.advanceTimersByTimeAsync(0)
    },
    idle: () => Promise.all(going),
  }
}

describe('one question at a time', () => {
  it('the next round begins when the answer is there and the time is over', async () => {
    const { heads, answer, pass } = setUp([session().run])
    await pass(99)
    expect(heads().length).toBe(0)
    await pass(1)
    await pass(1_000)
    expect(heads().length).toBe(1)
    await answer()
    await pass(99)
    expect(heads().length).toBe(1)
    await pass(1)
    expect(heads().length).toBe(2)
  })

  it('a look is at once; while one is under way another follows it, however often it was wished', async () => {
    const { rounds, heads, answer, pass } = setUp([session().run])
    rounds.lookNow()
    expect(heads().length).toBe(1)
    rounds.lookNow()
    rounds.lookNow()
    await pass(1_000)
    expect(heads().length).toBe(1)
    await answer()
    expect(heads().length).toBe(2)
    await answer()
    await pass(99)
    expect(heads().length, 'and then the time goes on').toBe(2)
    await pass(1)
    expect(heads().length).toBe(3)
  })

  it('a look stands for the round that was to come', async () => {
    const { rounds, heads, answer, pass } = setUp([session().run])
    await pass(90)
    rounds.lookNow()
    await answer()
    await pass(99)
    expect(heads().length).toBe(1)
  })

  it('both kinds are looked at, neither waits for the other', async () => {
    const { rounds, asked } = setUp([session().run])
    rounds.lookNow()
    expect(asked.map(({ kind }) => kind).toSorted()).toEqual(['heads', 'online'])
  })

  it('a question that fails is told, and the next is asked at its time', async () => {
    const { told, run } = session()
    const { heads, failures, pass } = setUp([run])
    await pass(100)
    heads()[0]!.answer.reject(new Error('down'))
    await pass(100)
    expect([heads().length, failures.length, told.length]).toEqual([2, 1, 0])
  })

  it('R08: after the close nothing begins, and what is under way is the last', async () => {
    const { rounds, asked, answer, pass } = setUp([session().run])
    await pass(100)
    rounds.lookNow()
    const before = asked.length
    rounds.close()
    await answer()
    rounds.lookNow()
    await pass(10_000)
    expect(asked.length).toBe(before)
  })
})

it.each([
  [0, 80],
  [0.25, 90],
  [0.5, 100],
  [0.75, 110],
  // never quite 1
  [1 - 2 ** -32, 119],
])('nodes do not ask together: rounds are a fifth longer or shorter (%s)', async (random, ms) => {
  const { heads, pass } = setUp([session().run], () => random)
  await pass(ms - 1)
  expect(heads().length).toBe(0)
  await pass(1)
  expect(heads().length).toBe(1)
})

describe('what is asked, and what becomes of the answer', () => {
  async function ask(runs: SessionRun[], standings: SessionStanding[]) {
    const set = setUp(runs)
    await set.pass(100)
    await set.answer(...standings)
    return set
  }
  const entitled = { is: 'head', position: 5, log_seq: 2, entitled: true }

  it('each session that is open, all in one question; nothing is told of one that is not', async () => {
    const [a, b, c] = [session(), session(null), session({ user_no: 2, by: { token_version: 3 } })]
    const { heads } = await ask([a.run, b.run, c.run], [{ is: 'same' }, { is: 'same' }])
    expect(heads()[0]!.places).toMatchObject([
      { user_no: 1, by: { session_id: 's' } },
      { user_no: 2, by: { token_version: 3 } },
    ])
    expect([a.told, b.told, c.told]).toEqual([[entitled], [], [entitled]])
  })

  it('R01: it is told how far the store is', async () => {
    const { told, run } = session()
    await ask([run], [{ is: 'moved', position: 9, log_seq: 4, entitled: true }])
    expect(told).toEqual([{ is: 'head', position: 9, log_seq: 4, entitled: true }])
  })

  it('C4: and whether it may go on', async () => {
    const { told, run } = session()
    await ask([run], [{ is: 'moved', position: 5, log_seq: 2, entitled: false }])
    expect(told).toEqual([{ ...entitled, entitled: false }])
  })

  it('G10: an account that is gone was deleted', async () => {
    const { told, run } = session()
    await ask([run], [{ is: 'gone' }])
    expect(told).toEqual([{ is: 'hint', hint: { is: 'deleted' } }])
  })

  it.each<[string, Partial<Place>, SessionStanding]>([
    ['another history', { history_id: 'before' }, { is: 'same' }],
    ['another history, further on', { history_id: 'before' }, { is: 'moved', position: 9, log_seq: 2, entitled: true }],
    ['a position below what was sent', {}, { is: 'moved', position: 4, log_seq: 2, entitled: true }],
    ['a log below what was told', {}, { is: 'moved', position: 5, log_seq: 1, entitled: true }],
  ])('C6: a store of another past ends it: %s', async (_, place, standing) => {
    const { told, run } = session(place)
    await ask([run], [standing])
    expect(told).toEqual([{ is: 'restored' }])
  })

  it('R08: the devices that are online, of each user once', async () => {
    const [a, b, c] = [session(), session({ device_no: 2 }), session({ user_no: 2 })]
    const { rounds, asked, pass } = setUp([a.run, b.run, c.run])
    rounds.lookNow()
    const question = asked.find(({ kind }) => kind === 'online')!
    expect(question.user_nos).toEqual([1, 2])
    question.answer.resolve(new Map([[1, ['x', 'y']]]))
    await pass(0)
    const online = (...device_ids: string[]) => ({ is: 'online', device_ids })
    expect([a.told, b.told, c.told]).toEqual([[online('x', 'y')], [online('x', 'y')], [online()]])
  })
})
