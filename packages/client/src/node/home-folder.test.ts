import { chmod, mkdir, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openHomeFolder } from './home-folder.ts'

describe('openHomeFolder', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealpost-home-'))
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  test('makes the folder 0700, with those above it', async () => {
    const home = openHomeFolder(join(folder, 'a', 'b'))
    expect((await stat(home)).mode & 0o777).toBe(0o700)
    expect(openHomeFolder(home)).toBe(home)
  })

  test.each([0o755, 0o750, 0o701, 0o777])('refuses a folder of mode %o and says chmod', async (mode) => {
    await chmod(folder, mode)
    expect(() => openHomeFolder(folder)).toThrow(
      expect.objectContaining({ code: 'insecure_permissions', hint: expect.stringContaining(`chmod 700 ${folder}`) }),
    )
  })

  test.each(['sealpost.sqlite', 'sealpost.sqlite-wal', 'leader.lock'])('refuses a %s that others can read', async (name) => {
    await writeFile(join(folder, name), '', { mode: 0o600 })
    openHomeFolder(folder)
    await chmod(join(folder, name), 0o640)
    expect(() => openHomeFolder(folder)).toThrow(expect.objectContaining({ code: 'insecure_permissions' }))
  })

  test('refuses a state that is a link', async () => {
    await writeFile(join(folder, 'elsewhere'), '')
    await symlink(join(folder, 'elsewhere'), join(folder, 'sealpost.sqlite'))
    expect(() => openHomeFolder(folder)).toThrow(expect.objectContaining({ code: 'insecure_permissions' }))
  })

  test('follows a link to a private folder, and checks that one', async () => {
    const real = join(folder, 'real')
    await mkdir(real, { mode: 0o700 })
    await symlink(real, join(folder, 'link'))
    expect(openHomeFolder(join(folder, 'link'))).toBe(real)
    await chmod(real, 0o755)
    expect(() => openHomeFolder(join(folder, 'link'))).toThrow(expect.objectContaining({ code: 'insecure_permissions' }))
  })

  test('a file in its place, or above it, is a fault of the disk', async () => {
    await writeFile(join(folder, 'file'), '')
    expect(() => openHomeFolder(join(folder, 'file'))).toThrow(expect.objectContaining({ code: 'disk' }))
    expect(() => openHomeFolder(join(folder, 'file', 'home'))).toThrow(expect.objectContaining({ code: 'disk' }))
  })
})
