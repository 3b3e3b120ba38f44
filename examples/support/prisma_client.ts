/**
 * What `prisma generate` (7.10) makes of the schema below, without the types of its many query options.
 *
 * In an application it is the folder that the schema's generator names, made anew at each change of the schema. Here it is
 * kept, so that the example and the tests need neither Prisma's command line nor what that downloads.
 *
 * @module
 */

// Not in the import map: only what is about ORMs needs it.
import { getPrismaClient } from "npm:@prisma/client@7.10.0/runtime/client";
import type { PrismaPg } from "npm:@prisma/adapter-pg@7.10.0";
import { Buffer } from "node:buffer";

const SCHEMA = `generator client {
  provider   = "prisma-client"
  output     = "../generated"
  engineType = "client"
}

datasource db {
  provider = "postgresql"
}

model Order {
  id   String @id @db.Uuid
  item String

  @@map("example_prisma_orders")
}
`;

// As generated.
const MODEL =
  '{"models":{"Order":{"fields":[{"name":"id","kind":"scalar","type":"String"},{"name":"item","kind":"scalar","type":"String"}],"dbName":"example_prisma_orders","schema":null}},"enums":{},"types":{}}';
const STRINGS =
  '["where","Order.findUnique","Order.findUniqueOrThrow","orderBy","cursor","Order.findFirst","Order.findFirstOrThrow","Order.findMany","data","Order.createOne","Order.createMany","Order.createManyAndReturn","Order.updateOne","Order.updateMany","Order.updateManyAndReturn","create","update","Order.upsertOne","Order.deleteOne","Order.deleteMany","having","_count","_min","_max","Order.groupBy","Order.aggregate","AND","OR","NOT","id","item","equals","in","notIn","lt","lte","gt","gte","contains","startsWith","endsWith","not","set"]';
const GRAPH =
  "KAkQBRoAACEAMBsAAAQAEBwAACEAMB0BAAAAAR4BACMAIQEAAAABACABAAAAAQAgBRoAACEAMBsAAAQAEBwAACEAMB0BACIAIR4BACMAIQADAAAABAAgAwAABQAwBAAAAQAgAwAAAAQAIAMAAAUAMAQAAAEAIAMAAAAEACADAAAFADAEAAABACACHQEAAAABHgEAAAABAQgAAAkAIAIdAQAAAAEeAQAAAAEBCAAACwAwAQgAAAsAMAIdAQAoACEeAQAoACECAAAAAQAgCAAADgAgAh0BACgAIR4BACgAIQIAAAAEACAIAAAQACACAAAABAAgCAAAEAAgAwAAAAEAIA8AAAkAIBAAAA4AIAEAAAABACABAAAABAAgAxUAACUAIBYAACcAIBcAACYAIAUaAAAaADAbAAAXABAcAAAaADAdAQAbACEeAQAcACEDAAAABAAgAwAAFgAwFAAAFwAgAwAAAAQAIAMAAAUAMAQAAAEAIAUaAAAaADAbAAAXABAcAAAaADAdAQAbACEeAQAcACELFQAAHgAgFgAAHwAgFwAAHwAgHwEAAAABIAEAAAAEIQEAAAAEIgEAAAABIwEAAAABJAEAAAABJQEAAAABKQEAIAAhDhUAAB4AIBYAAB8AIBcAAB8AIB8BAAAAASABAAAABCEBAAAABCIBAAAAASMBAAAAASQBAAAAASUBAAAAASYBAAAAAScBAAAAASgBAAAAASkBAB0AIQ4VAAAeACAWAAAfACAXAAAfACAfAQAAAAEgAQAAAAQhAQAAAAQiAQAAAAEjAQAAAAEkAQAAAAElAQAAAAEmAQAAAAEnAQAAAAEoAQAAAAEpAQAdACEIHwIAAAABIAIAAAAEIQIAAAAEIgIAAAABIwIAAAABJAIAAAABJQIAAAABKQIAHgAhCx8BAAAAASABAAAABCEBAAAABCIBAAAAASMBAAAAASQBAAAAASUBAAAAASYBAAAAAScBAAAAASgBAAAAASkBAB8AIQsVAAAeACAWAAAfACAXAAAfACAfAQAAAAEgAQAAAAQhAQAAAAQiAQAAAAEjAQAAAAEkAQAAAAElAQAAAAEpAQAgACEFGgAAIQAwGwAABAAQHAAAIQAwHQEAIgAhHgEAIwAhCB8BAAAAASABAAAABCEBAAAABCIBAAAAASMBAAAAASQBAAAAASUBAAAAASkBACQAIQsfAQAAAAEgAQAAAAQhAQAAAAQiAQAAAAEjAQAAAAEkAQAAAAElAQAAAAEmAQAAAAEnAQAAAAEoAQAAAAEpAQAfACEIHwEAAAABIAEAAAAEIQEAAAAEIgEAAAABIwEAAAABJAEAAAABJQEAAAABKQEAJAAhAAAAASoBAAAAAQAAAAADFQAGFgAHFwAIAAAAAxUABhYABxcACAECAQIDAQUGAQYHAQcIAQkKAQoMAgsNAwwPAQ0RAg4SBBETARIUARMVAhgYBRkZCQ";

/** The client of a transaction. */
export interface PrismaTransaction {
  /** The model. */
  readonly order: {
    create(
      options: { readonly data: { readonly id: string; readonly item: string } },
    ): Promise<{ readonly id: string }>;
    findUnique(options: { readonly where: { readonly id: string } }): Promise<{ readonly item: string } | null>;
  };
  /** Runs a statement and gives its rows. */
  $queryRawUnsafe<T = unknown>(text: string, ...values: unknown[]): Promise<T>;
  /** Runs a statement and gives how many rows it changed. */
  $executeRawUnsafe(text: string, ...values: unknown[]): Promise<number>;
}

/** The client of a database. */
export interface PrismaClient extends PrismaTransaction {
  /** Connects, which the first statement does, too. */
  $connect(): Promise<void>;
  /** Closes what the client opened. */
  $disconnect(): Promise<void>;
  /** Runs a function in a transaction. */
  $transaction<T>(
    fn: (tx: PrismaTransaction) => Promise<T>,
    options?: { readonly maxWait?: number; readonly timeout?: number },
  ): Promise<T>;
}

/** Makes the client of a database. */
export const PrismaClient = getPrismaClient({
  previewFeatures: [],
  clientVersion: "7.10.0",
  engineVersion: "0edf323efd1d98336f3f0a68684b56f689b900d3",
  activeProvider: "postgresql",
  inlineSchema: SCHEMA,
  runtimeDataModel: JSON.parse(MODEL),
  parameterizationSchema: { strings: JSON.parse(STRINGS), graph: GRAPH },
  compilerWasm: {
    getRuntime: () => import("npm:@prisma/client@7.10.0/runtime/query_compiler_fast_bg.postgresql.mjs"),
    getQueryCompilerWasmModule: async () => {
      const { wasm } = await import(
        "npm:@prisma/client@7.10.0/runtime/query_compiler_fast_bg.postgresql.wasm-base64.mjs"
      );
      return new WebAssembly.Module(Buffer.from(wasm, "base64"));
    },
    importName: "./query_compiler_fast_bg.js",
  },
  // The runtime makes the class from what it is given, so its type cannot tell the methods of this client.
}) as unknown as new (options: { readonly adapter: PrismaPg }) => PrismaClient;
