import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openSecrets } from './secrets.ts'

let folder: string
let path: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealpost-secrets-'))
  path = join(folder, 'secrets.json')
})
afterEach(() => rm(folder, { recursive: true }))

describe('the secrets', () => {
  it('are made once, private to the user, and are the same at every start', async () => {
    const first = await openSecrets(path)
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    expect(await openSecrets(path)).toEqual(first)
    expect(await readdir(folder)).toEqual(['secrets.json'])
    expect(
      new Set([first.server_sign_seed, first.token_key, first.jwt_sign_seed].map((key) => Buffer.from(key).toString('hex'))).size,
    ).toBe(3)
  })

  it('two relays that start at once on one file agree', async () => {
    const [one, two] = await Promise.all([openSecrets(path), openSecrets(path)])
    expect(one).toEqual(two)
  })

  it.each([0o640, 0o604])('are refused when others can read them (%o)', async (mode) => {
    await openSecrets(path)
    await chmod(path, mode)
    await expect(openSecrets(path)).rejects.toMatchObject({ code: 'insecure_permissions', hint: expect.stringContaining('chmod 600') })
  })

  it('damaged ones are never replaced, nor shown', async () => {
    await openSecrets(path)
    const text = await readFile(path, 'utf8')
    for (const damaged of ['', text.slice(0, -20), text.replace(/"token_key": "./, '"token_key": "'), '{"v": 2}']) {
      await writeFile(path, damaged)
      const error = await openSecrets(path).catch((error: unknown) => error)
      expect(error).toMatchObject({
        code: 'state_damaged',
        message: expect.stringContaining('damaged'),
        hint: expect.stringContaining('backup'),
      })
      expect((error as Error).cause).toBeUndefined()
      expect(await readFile(path, 'utf8')).toBe(damaged)
    }
  })

  it('a folder in their place, and a folder that is not there, are no question of modes', async () => {
    await expect(openSecrets(folder)).rejects.toMatchObject({ code: 'disk', message: expect.stringContaining('it is a folder') })
    await expect(openSecrets(join(folder, 'none', 'secrets.json'))).rejects.toMatchObject({
      code: 'disk',
      hint: expect.stringContaining('make the folder'),
    })
  })
})
