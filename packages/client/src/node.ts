/** `@sealpost/client/node`: where the SDK lives on Node. */
export { openHome } from './node/home.ts'
