/**
 * Pages of the log (protocol.md §7): one read of the store per page, from where the session stands or, for a query, from
 * where its token or `after_position` says. Bound: a page fits into one frame, and `reads` of them are read at once:
 * however many devices catch up, handshakes and what is live find the store free. A hole in what is live goes before what catches up,
 * and what nobody waits for any more is not read.
 */
import { SealpostError } from '@sealpost/protocol'
import PQueue from 'p-queue'
import type { Input, PageAsk } from '../../core/state.ts'
import type { Page, Store } from '../../ports/store.ts'
import type { Continuations, PageOwner } from './continuation.ts'

export type PageAnswer = Extract<Input, { is: 'page' | 'page_refused' }>

export type PagesDeps = {
  store: Pick<Store, 'readPage' | 'now'>
  continuations: Continuations
  /** Records of one page, in bytes. */
  page_bytes: number
  /** At once. */
  reads: number
  failed(error: unknown): void
}

/** `wanted`: whether somebody still waits for the page when its turn comes. */
export type ReadPage = (ask: PageAsk, owner: PageOwner, wanted?: () => boolean) => Promise<PageAnswer>

export function createPages(deps: PagesDeps): ReadPage {
  const { store, continuations } = deps
  const reads = new PQueue({ concurrency: deps.reads })
  return async ({ job, told, after, user_no, limit, own, streams }, owner, wanted = () => true) => {
    const filter = { query: job?.query === true, streams }
    let from = after
    if (job !== null && job.token !== null) {
      const position = continuations.read(job.token, owner, filter, store.now())
      if (position === null || (!job.query && position !== told)) return { is: 'page_refused', code: 'invalid_token' }
      from = position
    }
    try {
      const request = { user_no, after: from, limit, bytes: deps.page_bytes, own, streams }
      const read = (): Promise<Page> | null => (wanted() ? store.readPage(request) : null)
      const page = await reads.add(read, { priority: job === null ? 1 : 0 })
      if (page === null) return { is: 'page_refused', code: 'unavailable' }
      const more = job !== null && page.upto < page.head_position
      const token = more ? continuations.create(owner, filter, page.upto, store.now()) : null
      return { is: 'page', page, after: from, token }
    } catch (error) {
      deps.failed(error)
      return { is: 'page_refused', code: error instanceof SealpostError && error.code === 'timeout' ? 'timeout' : 'unavailable' }
    }
  }
}
