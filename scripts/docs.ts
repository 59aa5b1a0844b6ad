/** THE list of generated documents. `node scripts/run.mjs docs` writes them; a test fails when one is stale. */
import { writeFileSync } from 'node:fs'
import { makeAsyncApi } from '../packages/server/src/api/asyncapi.ts'
import { adminMatrixPage } from '../packages/server/src/api/admin-matrix-page.ts'
import { makeAdminOpenApi } from '../packages/server/src/api/admin-openapi.ts'
import { makeOpenApi } from '../packages/server/src/api/openapi.ts'
import { routesPage } from '../packages/server/src/api/routes-page.ts'
import { configurationPage, envExample } from '../packages/server/src/config/config-page.ts'

export type GeneratedDocument = { path: string; make(): string | Promise<string> }

export const DOCUMENTS: readonly GeneratedDocument[] = [
  { path: 'docs/configuration.md', make: configurationPage },
  { path: '.env.example', make: envExample },
  { path: 'docs/routes.md', make: routesPage },
  { path: 'docs/operations/admin-routes.md', make: adminMatrixPage },
  { path: 'docs/api/openapi.json', make: () => toJson(makeOpenApi()) },
  { path: 'docs/api/admin-openapi.json', make: () => toJson(makeAdminOpenApi()) },
  { path: 'docs/api/asyncapi.json', make: () => toJson(makeAsyncApi()) },
]

function toJson(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

export const ROOT = new URL('../', import.meta.url)

if (process.argv[1] !== undefined && import.meta.url.endsWith(process.argv[1].split('/').pop() ?? ' ')) {
  for (const { path, make } of DOCUMENTS) {
    writeFileSync(new URL(path, ROOT), await make())
    process.stdout.write(`${path}\n`)
  }
}
