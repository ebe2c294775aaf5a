"""Its settings; the tests say where the database is."""

SECRET_KEY = "for tests alone"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.django_project.urls"
INSTALLED_APPS = ["tests.django_project.notes"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": {"timeout": 20}}}
ASYNC_MIDDLEWARE = ["tests.django_project.middleware.async_stamp"]
MIDDLEWARE = [*ASYNC_MIDDLEWARE, "tests.django_project.middleware.SyncStamp", "tests.django_project.middleware.both"]
