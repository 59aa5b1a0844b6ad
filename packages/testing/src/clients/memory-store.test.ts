import { createMemoryStore } from './memory-store.ts'
import { describeStoreContract } from '../contracts/store-contract.ts'

describeStoreContract('memory', () => {
  const store = createMemoryStore()
  return Promise.resolve({ store, reopen: () => Promise.resolve(store), dispose: () => store.close() })
})
