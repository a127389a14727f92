-- Writers wait while a trigger is made, so this is run only where one is missing, or disabled.
CREATE OR REPLACE TRIGGER mark_rooms AFTER INSERT ON temperatures
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION mark_rooms();
CREATE OR REPLACE TRIGGER forget_rooms AFTER TRUNCATE ON temperatures
    FOR EACH STATEMENT EXECUTE FUNCTION forget_rooms();
