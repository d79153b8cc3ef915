// The page that is shown, by what stands behind the # of the address: the gateway serves files, not the console's paths.

function read(): { path: string; query: URLSearchParams } {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { path, query: new URLSearchParams(query) };
}

class Route {
  path = $state(read().path);
  query = $state(read().query);

  get parts(): string[] {
    return this.path.split("/").map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    });
  }
}

export const route = new Route();

export function follow(): void {
  const now = read();
  route.path = now.path;
  route.query = now.query;
}

export function go(path: string): void {
  location.hash = `#/${path}`;
}
