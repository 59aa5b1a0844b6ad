import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { DOCUMENTS, ROOT } from '../scripts/docs.ts'

it.each(DOCUMENTS)('$path is what `node scripts/run.mjs docs` would write', async ({ path, make }) => {
  expect(readFileSync(new URL(path, ROOT), 'utf8')).toBe(await make())
})
