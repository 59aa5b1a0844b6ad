import { setTimeout as wait } from 'node:timers/promises'
import type { AccountBatch } from '../../../server/src/ports/store.ts'

/** Asks again while somebody else holds the account, as the jobs do: a session writes its last contact whenever it likes. */
export async function unheld(work: () => Promise<AccountBatch>): Promise<AccountBatch> {
  for (let tries = 0; tries < 500; tries++) {
    const batch = await work()
    if (batch.is !== 'held') return batch
    await wait(10)
  }
  return { is: 'held' }
}
