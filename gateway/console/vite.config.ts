import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The router serves each built file by its name; those that are named by their content are kept for good.
export default defineConfig({
  base: "/",
  plugins: [svelte()],
  build: {
    outDir: "dist",
    target: "es2022",
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      output: {
        hashCharacters: "hex",
        entryFileNames: "console/[name]-[hash:12].js",
        chunkFileNames: "console/[name]-[hash:12].js",
        assetFileNames: "console/[name]-[hash:12][extname]",
      },
    },
  },
  server: { proxy: { "^/(account|admin|auth|v1|v1beta|files|providers|models|info|ready|health|healthcheck)": "http://127.0.0.1:8080" } },
});
