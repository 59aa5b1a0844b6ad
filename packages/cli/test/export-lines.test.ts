import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { run, useWorld } from '@sealpost/testing/clients/cli-world'

const world = useWorld()

describe('export decrypt of what is no export (B08)', () => {
  const decrypt = async (name: string, content: string | Uint8Array, bytes?: number) => {
    const file = join(world.folder, name)
    await writeFile(file, content)
    if (bytes !== undefined) await truncate(file, bytes)
    return run(['export', 'decrypt', '--home', world.laptop, file])
  }

  test('a line that does not end is given up, however long the file is', async () => {
    const answer = await decrypt('endless', '{"kind":"export"', 2 ** 30)
    expect(answer).toMatchObject({ code: 6, stderr: expect.stringContaining('a line is too long') })
  })

  test('bytes that are no text are told', async () => {
    expect(await decrypt('binary', Uint8Array.of(0xff, 0xfe, 0x0a))).toMatchObject({ code: 6, stderr: expect.stringContaining('no text') })
  })

  test('lines may end as they do elsewhere, and be empty', async () => {
    const text = '\r\n\n{"kind":"export","format":1,"user_id":"somebody else"}\r\n'
    expect(await decrypt('crlf', text)).toMatchObject({ code: 3, stderr: expect.stringContaining('the export of another account') })
  })
})
