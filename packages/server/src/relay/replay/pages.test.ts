import { SealpostError } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import type { Job, PageAsk } from '../../core/state.ts'
import type { Page, PageRequest } from '../../ports/store.ts'
import type { PageOwner } from './continuation.ts'
import { createPages, type ReadPage } from './pages.ts'

const OWNER: PageOwner = { user_id: 'u', device_id: 'd', history_id: 'h' }
const PAGE: Page = { events: [], upto: 5, head_position: 5, floor: 0, tip: null }
const JOB: Job = { id: 1, query: false, after: 0, limit: 10, pages: 1, streams: null, token: null }

type Read = { user_no: number; answer(): void; fail(error: Error): void }

/** A store that answers when it is told to. */
function open(reads: number) {
  /** Under way, in the order in which they began. */
  const going: Read[] = []
  const begun: number[] = []
  const failures: unknown[] = []
  let most = 0
  const readPage: ReadPage = createPages({
    store: {
      now: () => 0,
      readPage({ user_no }: PageRequest) {
        const { promise, resolve, reject } = Promise.withResolvers<Page>()
        const read = { user_no, answer: () => resolve(PAGE), fail: reject }
        going.push(read)
        begun.push(user_no)
        most = Math.max(most, going.length)
        return promise.finally(() => going.splice(going.indexOf(read), 1))
      },
    },
    continuations: { create: () => 'token', read: () => null },
    page_bytes: 1_000,
    reads,
    failed: (error) => failures.push(error),
  })
  const ask = (user_no: number, job: Job | null = JOB): PageAsk => ({
    user_no,
    told: 0,
    after: 0,
    limit: 10,
    own: null,
    streams: null,
    job,
  })
  return {
    going,
    begun,
    failures,
    most: () => most,
    read: (asked: PageAsk) => readPage(asked, OWNER),
    catchUp: (user_no: number, wanted?: () => boolean) => readPage(ask(user_no), OWNER, wanted),
    fillHole: (user_no: number) => readPage(ask(user_no, null), OWNER),
    /** Answers one after another until nothing is under way. */
    async answerAll() {
      for (; going.length > 0; await settled()) going[0]?.answer()
    },
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

describe('the budget of pages', () => {
  it('R12: never more than it says are read at once, however many wait, and all have their turn in their order', async () => {
    const pages = open(4)
    const answers = Array.from({ length: 100 }, (_, i) => pages.catchUp(i))
    await settled()
    expect(pages.begun).toEqual([0, 1, 2, 3])
    pages.going[2]?.answer()
    await settled()
    expect(pages.begun).toEqual([0, 1, 2, 3, 4])
    await pages.answerAll()
    expect(pages.most()).toBe(4)
    expect(pages.begun).toEqual(Array.from({ length: 100 }, (_, i) => i))
    expect(await Promise.all(answers)).toEqual(Array.from({ length: 100 }, () => ({ is: 'page', page: PAGE, after: 0, token: null })))
  })

  it('a hole in what is live goes before the pages that catch up and wait', async () => {
    const pages = open(2)
    const answers = Array.from({ length: 10 }, (_, i) => pages.catchUp(i))
    await settled()
    answers.push(pages.fillHole(100), pages.fillHole(101))
    await pages.answerAll()
    expect(pages.begun.slice(0, 6)).toEqual([0, 1, 100, 101, 2, 3])
    await Promise.all(answers)
  })

  it('a read that fails gives its place back, and is told to whoever waits for it', async () => {
    const pages = open(1)
    const answers = [1, 2, 3].map((user_no) => pages.catchUp(user_no))
    await settled()
    pages.going[0]?.fail(new Error('gone'))
    await settled()
    pages.going[0]?.fail(new SealpostError('timeout', 'late'))
    await settled()
    await pages.answerAll()
    expect(await Promise.all(answers)).toEqual([
      { is: 'page_refused', code: 'unavailable' },
      { is: 'page_refused', code: 'timeout' },
      { is: 'page', page: PAGE, after: 0, token: null },
    ])
    expect(pages.failures).toHaveLength(2)
  })

  it('what nobody waits for any more is not read, and holds up nobody', async () => {
    const pages = open(2)
    let open_sessions = true
    const left = Array.from({ length: 1_000 }, (_, i) => pages.catchUp(i, () => open_sessions))
    const stays = pages.catchUp(5_000)
    await settled()
    open_sessions = false
    await pages.answerAll()
    expect(pages.begun).toEqual([0, 1, 5_000])
    expect(await stays).toMatchObject({ is: 'page' })
    expect((await Promise.all(left)).filter(({ is }) => is === 'page')).toHaveLength(2)
    expect(pages.failures).toEqual([])
  })

  it('a token that is none of ours waits for nothing', async () => {
    const pages = open(1)
    void pages.catchUp(1)
    const forged = { ...JOB, token: 'forged' }
    const ask: PageAsk = { user_no: 2, told: 0, after: 0, limit: 10, own: null, streams: null, job: forged }
    expect(await pages.read(ask)).toEqual({ is: 'page_refused', code: 'invalid_token' })
    await settled()
    await pages.answerAll()
  })
})
