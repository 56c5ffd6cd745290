"""The toolkit below /o/, its metadata also where RFC 8414 looks for it, and a resource at /api/ that it protects."""

import os

from django.contrib import admin
from django.http import JsonResponse
from django.urls import include, path, re_path
from oauth2_provider.decorators import protected_resource
from oauth2_provider.urls import metadata_urlpatterns


@protected_resource(scopes=[os.environ["INTEROP_SCOPE"]], advertise_metadata=True)
def resource(request):
    owner = request.resource_owner
    return JsonResponse({"target": request.get_full_path(), "subject": owner.username if owner else None})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("", include(metadata_urlpatterns)),
    re_path(r"^api/", resource),
]
