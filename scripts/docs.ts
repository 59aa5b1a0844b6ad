/** THE list of generated documents. `node scripts/run.mjs docs` writes them; a test fails when one is stale. */
import { writeFileSync } from 'node:fs'
import { configurationPage, envExample } from '../packages/server/src/config-page.ts'

export type GeneratedDocument = { path: string; make(): string | Promise<string> }

export const DOCUMENTS: readonly GeneratedDocument[] = [
  { path: 'docs/configuration.md', make: configurationPage },
  { path: '.env.example', make: envExample },
]

export const ROOT = new URL('../', import.meta.url)

if (process.argv[1] !== undefined && import.meta.url.endsWith(process.argv[1].split('/').pop() ?? ' ')) {
  for (const { path, make } of DOCUMENTS) {
    writeFileSync(new URL(path, ROOT), await make())
    process.stdout.write(`${path}\n`)
  }
}
