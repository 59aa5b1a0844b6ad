import { mkdtemp, rm, stat, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openHome } from './home.ts'

describe('openHome', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealpost-home-'))
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  test('opens an empty home, several times at once, and closes twice', async () => {
    const first = await openHome(folder)
    const homes = [first, await openHome(folder)]
    for (const home of homes) expect(await home.store.readIdentity()).toBeNull()
    expect((await first.coordination.lead()).role).toBe('leader')
    // While it is open the state is never empty, so nobody takes it for lost.
    expect((await stat(join(folder, 'sealpost.sqlite'))).size).toBeGreaterThan(0)
    homes.push(await openHome(folder))
    for (const home of homes) await home.close()
    for (const home of homes) await home.close()
  })

  test.each(['empty', 'gone'])('a home whose state is %s is damaged, not new', async (how) => {
    const home = await openHome(folder)
    await home.coordination.lead()
    await home.close()
    const state = join(folder, 'sealpost.sqlite')
    if (how === 'empty') await truncate(state)
    else await rm(state)
    await expect(openHome(folder)).rejects.toMatchObject({ code: 'state_damaged' })
  })
})
