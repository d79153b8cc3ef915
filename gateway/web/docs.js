// The API's description, shown by Swagger UI from the same origin: nothing is fetched from elsewhere.

/* global SwaggerUIBundle */
SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#operations',
  deepLinking: true,
  filter: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: -1,
  tryItOutEnabled: true,
  // Swagger's own server would be asked to judge the document.
  validatorUrl: null,
});
