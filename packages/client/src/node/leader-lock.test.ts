import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { takeLeaderLock } from './leader-lock.ts'

let folder: string
let path: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealpost-lock-'))
  path = join(folder, 'leader.lock')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

/** Whether another process gets the lock now. */
async function isFree(): Promise<boolean> {
  const module = join(import.meta.dirname, 'leader-lock.ts')
  const code = `import { takeLeaderLock } from ${JSON.stringify(module)}; console.log(takeLeaderLock(process.argv[1]) !== null)`
  const flags = ['--conditions=development', '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', code]
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, path])
  return stdout.trim() === 'true'
}

describe('the lock of the leading process', () => {
  test('is kept from other processes, also when this one asks for it again', async () => {
    const lock = takeLeaderLock(path)
    expect(takeLeaderLock(path)).toBeNull()
    expect(await isFree()).toBe(false)
    lock?.release()
    expect(await isFree()).toBe(true)
  })

  test.each([
    ['text', 'not a database '.repeat(1_000)],
    ['half a database', 'SQLite format 3\0'.repeat(300)],
  ])('a file of it that holds %s is emptied, and the lock holds', async (_, damaged) => {
    await writeFile(path, damaged, { mode: 0o600 })
    const lock = takeLeaderLock(path)
    expect(await isFree()).toBe(false)
    lock?.release()
    expect(lock).not.toBeNull()
  })

  test('a folder in its place is a fault that says so', async () => {
    await mkdir(path)
    expect(() => takeLeaderLock(path)).toThrow(
      expect.objectContaining({ code: 'disk', message: expect.stringContaining('unable to open database file') }),
    )
  })
})
