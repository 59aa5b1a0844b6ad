/**
 * The documents that the relay serves about itself (G21): OpenAPI, AsyncAPI, and a page to read them with. All of it comes from this
 * server; the page runs under a policy that lets it load and call nothing else. Bound: files of the list, read once.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { makeAsyncApi } from '../api/asyncapi.ts'
import { makeOpenApi } from '../api/openapi.ts'
import type { Answer, Answers } from './call.ts'
import type { Media } from './contract.ts'

const FILES: Readonly<Record<string, Media>> = {
  'swagger-ui.css': 'text/css',
  'swagger-ui-bundle.js': 'text/javascript',
  'start.js': 'text/javascript',
}

const CACHE = 'public, max-age=3600'
/** Swagger UI sets styles in attributes; scripts are files of this server alone. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sealpost API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
`

const START = `SwaggerUIBundle({ url: '/openapi.json', dom_id: '#page', deepLinking: true, validatorUrl: null, tryItOutEnabled: false })\n`

type Document = { bytes: Buffer; etag: string; media: Media }

/** `enabled` false: there are no documents here. */
export function createDocsRoutes(enabled: boolean): Answers<'read_openapi' | 'read_asyncapi' | 'read_docs' | 'read_docs_file'> {
  const documents = new Map<string, Promise<Document>>()
  const document = (name: string, media: Media, make: () => Promise<Buffer> | Buffer): Promise<Document> => {
    const known = documents.get(name) ?? Promise.resolve(make()).then((bytes) => ({ bytes, media, etag: etagOf(bytes) }))
    documents.set(name, known)
    return known
  }
  const json = (name: string, make: () => object) => document(name, 'application/json', () => Buffer.from(JSON.stringify(make())))

  async function serve(found: Promise<Document>): Promise<Answer> {
    const { bytes, etag, media } = await found
    return { bytes, media, headers: { etag, 'cache-control': CACHE, 'content-security-policy': POLICY, 'referrer-policy': 'no-referrer' } }
  }
  const whenEnabled = async (found: () => Promise<Document>): Promise<Answer> => (enabled ? serve(found()) : NOT_FOUND)

  return {
    read_openapi: () => whenEnabled(() => json('openapi', makeOpenApi)),
    read_asyncapi: () => whenEnabled(() => json('asyncapi', makeAsyncApi)),
    read_docs: () => whenEnabled(() => document('page', 'text/html', () => Buffer.from(PAGE))),
    read_docs_file: async ({ params: { file } }) => {
      const media = Object.hasOwn(FILES, file) ? FILES[file] : undefined
      if (media === undefined) return NOT_FOUND
      return whenEnabled(() => document(file, media, () => (file === 'start.js' ? Buffer.from(START) : readAsset(file))))
    },
  }
}

const NOT_FOUND = { problem: { code: 'not_found' } } as const

function readAsset(file: string): Promise<Buffer> {
  return readFile(join(dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json')), file))
}

function etagOf(bytes: Buffer): string {
  return `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`
}
