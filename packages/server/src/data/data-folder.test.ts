import { mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openDataFolder } from './data-folder.ts'

let folder: string
beforeEach(async () => {
  folder = join(await mkdtemp(join(tmpdir(), 'sealpost-data-')), 'data')
})
afterEach(() => rm(join(folder, '..'), { recursive: true }))

describe('the data folder', () => {
  it('is private and used by one relay at a time', async () => {
    const first = await openDataFolder(folder)
    expect((await stat(folder)).mode & 0o777).toBe(0o700)
    await expect(openDataFolder(folder)).rejects.toMatchObject({ code: 'data_in_use' })
    first.close()
    const second = await openDataFolder(folder)
    second.close()
  })

  it('keeps nothing of a write that was cut short, and what others put there', async () => {
    const first = await openDataFolder(folder)
    first.close()
    for (const name of ['.secrets.json.0123456789ab.new', '.note', 'a.new']) await writeFile(join(folder, name), '')
    const second = await openDataFolder(folder)
    second.close()
    expect((await readdir(folder)).toSorted()).toEqual(['.note', 'a.new', 'relay.lock', 'version'])
  })

  it('with a damaged lock is refused, with what to do', async () => {
    const first = await openDataFolder(folder)
    first.close()
    await writeFile(join(folder, 'relay.lock'), 'x'.repeat(4096))
    await expect(openDataFolder(folder)).rejects.toMatchObject({ code: 'disk', message: expect.stringContaining('remove it') })
  })

  it('of a newer version is refused and stays as it is', async () => {
    const first = await openDataFolder(folder)
    first.close()
    await writeFile(join(folder, 'version'), '2\n')
    await expect(openDataFolder(folder)).rejects.toMatchObject({ code: 'data_newer', message: expect.stringContaining('newer version') })
    await writeFile(join(folder, 'version'), 'x')
    await expect(openDataFolder(folder)).rejects.toMatchObject({ code: 'state_damaged', hint: expect.stringContaining('backup') })
  })

  const places: [what: string, cause: RegExp, make: (base: string) => Promise<string>][] = [
    ['a file', /there is a file in its place/, async (base) => (await writeFile(join(base, 'file'), ''), join(base, 'file'))],
    ['below a file', /a part of the path is a file/, async (base) => (await writeFile(join(base, 'file'), ''), join(base, 'file', 'data'))],
    [
      'a link to itself',
      /links lead back to themselves/,
      async (base) => (await symlink('loop', join(base, 'loop')), join(base, 'loop', 'data')),
    ],
    ['a path that is too long', /the path is too long/, async (base) => join(base, 'x'.repeat(300))],
  ]
  it.each(places)('that is %s is refused with the cause, and with what to do', async (_, cause, make) => {
    const path = await make(join(folder, '..'))
    await expect(openDataFolder(path)).rejects.toMatchObject({
      code: 'disk',
      message: expect.stringMatching(cause),
      hint: expect.stringContaining('--data'),
    })
  })
})
