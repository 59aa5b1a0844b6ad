/**
 * The documents that the relay serves about itself (G21): OpenAPI, AsyncAPI, and a page to read them with. All of it comes from this
 * server; the page runs under a policy that lets it load and call nothing else. Bound: files of the list, read once.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { Answer, RouteAnswers } from '../call.ts'
import type { Media } from '../contract.ts'
import type { DOCS_CONTRACTS } from './contracts.ts'

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
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
`

/** The page is for reading: it offers to send nothing. */
const START = `SwaggerUIBundle({ url: '/openapi.json', dom_id: '#page', deepLinking: true, validatorUrl: null, supportedSubmitMethods: [] })\n`

type Document = { bytes: Buffer; etag: string; media: Media }
type Asked = { readonly headers: { 'if-none-match'?: string | undefined } }

/** What makes the documents. `enabled` false: there are none here. */
export type DocumentDeps = { openapi(): object; asyncapi?(): object; enabled?: boolean }

/** The documents of a list of routes, and the page to read them with. */
export function createDocuments({ openapi, asyncapi, enabled = true }: DocumentDeps): RouteAnswers<typeof DOCS_CONTRACTS> {
  const documents = new Map<string, Promise<Document>>()
  const document = (name: string, media: Media, make: () => Promise<Buffer> | Buffer): Promise<Document> => {
    const known = documents.get(name) ?? Promise.resolve(make()).then((bytes) => ({ bytes, media, etag: etagOf(bytes) }))
    documents.set(name, known)
    return known
  }
  const json = (name: string, make: () => object) => document(name, 'application/json', () => Buffer.from(JSON.stringify(make())))

  async function serve({ headers: asked }: Asked, found: () => Promise<Document>): Promise<Answer> {
    if (!enabled) return NOT_FOUND
    const { bytes, etag, media } = await found()
    const headers = { etag, 'cache-control': CACHE, 'content-security-policy': POLICY, 'referrer-policy': 'no-referrer' }
    if (has(asked['if-none-match'], etag)) return { take_over: (response) => void response.writeHead(304, headers).end() }
    return { bytes, media, headers }
  }
  const page = (call: Asked): Promise<Answer> => serve(call, () => document('page', 'text/html', () => Buffer.from(PAGE)))

  return {
    read_openapi: (call: Asked) => serve(call, () => json('openapi', openapi)),
    read_asyncapi: async (call: Asked) => (asyncapi === undefined ? NOT_FOUND : serve(call, () => json('asyncapi', asyncapi))),
    read_docs: page,
    read_docs_file: async (call: Asked & { readonly params: { readonly file: string } }): Promise<Answer> => {
      const { file } = call.params
      if (file === '') return page(call)
      const media = Object.hasOwn(FILES, file) ? FILES[file] : undefined
      if (media === undefined) return NOT_FOUND
      return serve(call, () => document(file, media, () => (file === 'start.js' ? Buffer.from(START) : readAsset(file))))
    },
  }
}

/** RFC 9110 §13.1.2, weak comparison: a proxy that compressed the document made its etag weak. */
function has(given: string | undefined, etag: string): boolean {
  return given !== undefined && (given.trim() === '*' || given.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag))
}

const NOT_FOUND = { problem: { code: 'not_found' } } as const

function readAsset(file: string): Promise<Buffer> {
  return readFile(join(dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json')), file))
}

function etagOf(bytes: Buffer): string {
  return `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`
}
