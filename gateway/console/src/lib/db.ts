// What stays in this browser: conversations, by account. Nothing of it is sent anywhere but with a question.

let opened: Promise<IDBDatabase> | null = null;

function open(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("moa", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("chats", { keyPath: "id" }).createIndex("account", "account");
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opened;
}

function done<T>(asked: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

export async function listed<T>(account: string): Promise<T[]> {
  const store = (await open()).transaction("chats").objectStore("chats");
  return (await done(store.index("account").getAll(account))) as T[];
}

export async function keep(row: { id: string; account: string }): Promise<void> {
  await done((await open()).transaction("chats", "readwrite").objectStore("chats").put(row));
}

export async function drop(id: string): Promise<void> {
  await done((await open()).transaction("chats", "readwrite").objectStore("chats").delete(id));
}

/** A random name; pages over plain HTTP have no randomUUID. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
