"""The router with the text service's providers in its process (`MOA_COLOCATE=text`), for one small machine."""
